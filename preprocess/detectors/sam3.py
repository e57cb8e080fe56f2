"""SAM 3: every instance of one phrase. Its masks are left aside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Sam3Model

from macco.preprocess.detectors.checkpoint import load_model
from macco.preprocess.detectors.phrasewise import Phrases, Squares


class Sam3Network:
    """A sam3 checkpoint from a local folder. An image is encoded once; each phrase is decoded by itself."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = load_model(Sam3Model, folder).to(device)
        self.device = device
        self.squares = Squares(folder, padded=False)
        self.phrases = Phrases(folder, int(self.model.config.text_config.max_position_embeddings))

    def groups(self, phrases: Sequence[str]) -> list[list[int]]:
        """See `PhraseNetwork`."""
        return [[k] for k in range(len(phrases))]

    def encode(self, pixels: Tensor) -> Any:
        """Feature maps and their positions."""
        return self.model.get_vision_features(pixel_values=pixels)

    def answer(
        self, images: Any, rows: Sequence[int], phrases: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """See `PhraseNetwork`. A score is the box's, times the phrase's of being in the image at all."""
        chosen = {
            name: tuple(each[list(rows)] if len(each) > 1 else each for each in images[name])
            for name in ("fpn_hidden_states", "fpn_position_encoding")
        }
        if len(images["fpn_hidden_states"][0]) == 1:  # of one image
            chosen = {
                name: tuple(each.expand(len(rows), *each.shape[1:]) for each in images[name])
                for name in chosen
            }
        ids, mask = (each.to(self.device) for each in self.phrases.tokens([text for (text,) in phrases]))
        out = self.model(vision_embeds=type(images)(**chosen), input_ids=ids, attention_mask=mask)
        scores = out.pred_logits.float().sigmoid() * out.presence_logits.float().sigmoid()
        corners = out.pred_boxes.float()
        first, last = corners[..., :2], corners[..., 2:]
        return scores[:, None], torch.cat([(first + last) / 2, last - first], -1)
