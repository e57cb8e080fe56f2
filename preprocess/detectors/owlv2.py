"""OWLv2: an image's patches against the embedding of each phrase."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import Owlv2ForObjectDetection

from macco.preprocess.detectors.checkpoint import load_model
from macco.preprocess.detectors.phrasewise import Phrases, Squares

KEPT = 4096  # embeddings of phrases that are at hand: captions say the same words again


class Owlv2Network:
    """An owlv2 checkpoint from a local folder. No phrase depends on another, so all are asked at once."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = load_model(Owlv2ForObjectDetection, folder).to(device)
        self.device = device
        self.squares = Squares(folder, padded=True)
        self.phrases = Phrases(folder, int(self.model.config.text_config.max_position_embeddings))
        self._known: dict[str, Tensor] = {}

    def groups(self, phrases: Sequence[str]) -> list[list[int]]:
        """See `PhraseNetwork`."""
        return [list(range(len(phrases)))]

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, Q, D] of an image's patches, and the box of each [B, Q, 4]."""
        grid = self.model.image_embedder(pixel_values=pixels)[0]
        features = grid.flatten(1, 2)
        return features, self.model.box_predictor(features, grid)

    def answer(
        self, images: tuple[Tensor, Tensor], rows: Sequence[int], phrases: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """See `PhraseNetwork`."""
        features, boxes = (each[list(rows)] for each in images)
        self._embed([text for of_image in phrases for text in of_image])
        most = max(map(len, phrases))
        queries = features.new_zeros(len(phrases), most, self.model.config.projection_dim)
        mask = torch.zeros(len(phrases), most, dtype=torch.bool, device=self.device)
        for n, of_image in enumerate(phrases):
            queries[n, : len(of_image)] = torch.stack([self._known[text] for text in of_image])
            mask[n, : len(of_image)] = True
        logits = self.model.class_predictor(features, queries, mask)[0]  # [N, Q, K]
        return logits.transpose(1, 2).float().sigmoid() * mask[..., None], boxes

    def _embed(self, texts: list[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > KEPT:
            self._known.clear()
            new = list(dict.fromkeys(texts))
        if new:
            ids, mask = (each.to(self.device) for each in self.phrases.tokens(new))
            made = self.model.owlv2.get_text_features(input_ids=ids, attention_mask=mask)
            self._known |= dict(zip(new, getattr(made, "pooler_output", made), strict=True))
