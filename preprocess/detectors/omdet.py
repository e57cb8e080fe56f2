"""OmDet-Turbo: queries of an image against the embedding of each phrase, with a task that names them all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import OmDetTurboForObjectDetection

from macco.preprocess.detectors.checkpoint import load_model
from macco.preprocess.detectors.phrasewise import Phrases, Squares
from macco.preprocess.detectors.prompts import first_fit

TASK = "Detect {}."


class OmDetNetwork:
    """An omdet-turbo checkpoint from a local folder. As many phrases are asked together as one task names whole."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = load_model(OmDetTurboForObjectDetection, folder).to(device)
        self.device = device
        self.squares = Squares(folder, padded=False)
        limit = int(self.model.config.text_config.max_position_embeddings)
        self.phrases = Phrases(folder, limit, spared=TASK.format(","))

    def groups(self, phrases: Sequence[str]) -> list[list[int]]:
        """See `PhraseNetwork`."""
        lengths = [self.phrases.length(text) + 1 for text in phrases]  # with its comma
        return first_fit(lengths, self.phrases.room + 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps of the images [B, C, H, W], finest first."""
        seen = self.model.vision_backbone(pixels)
        return list(self.model.encoder(seen, return_dict=True).extracted_states)

    def answer(
        self, images: list[Tensor], rows: Sequence[int], phrases: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """See `PhraseNetwork`.

        The model picks its queries by their best phrase. Images with few phrases say the last one again, which
        changes none of that, as a phrase of zeros would.
        """
        most = max(map(len, phrases))
        full = [[*own, *[own[-1]] * (most - len(own))] for own in phrases]
        classes = self.phrases.tokens([text for own in full for text in own])
        tasks = self.phrases.tokens([TASK.format(", ".join(own)) for own in phrases])
        structure = torch.full((len(full),), most, device=self.device)
        asked: tuple[Any, ...] = self.model.get_language_embedding(
            *(each.to(self.device) for each in (*classes, *tasks)), structure
        )
        out = self.model.decoder([states[list(rows)] for states in images], *asked, return_dict=True)
        scores = out.decoder_classes[-1].transpose(1, 2).float().sigmoid()
        there = [[k < len(own) for k in range(most)] for own in phrases]
        return scores * torch.tensor(there, device=self.device)[..., None], out.decoder_coords[-1]
