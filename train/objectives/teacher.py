"""A CLIP that shows another, which learns, what it was."""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.train.clip.towers import Text, image_tower, wide


class Teacher(nn.Module):
    """The start of a run, as it is or as its moving average with the student."""

    def __init__(self, clip: nn.Module, decay: float) -> None:
        """decay: of the average, per step; 1: the start as it is."""
        super().__init__()
        copy: Any = deepcopy(clip).requires_grad_(False)
        self.clip, self.decay = copy, decay
        self.text, self.image = Text(copy), image_tower(copy.visual)

    @torch.no_grad()
    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features of images [b, 3, S, S] and of texts [n, L], [b, D] and [n, D]."""
        image = self.image.encode(self.image.embed(pixels), None).cls
        text = self.text.encode(self.text.embed(tokens), self.text.ends(tokens)).cls
        return F.normalize(wide(image), dim=-1), F.normalize(wide(text), dim=-1)

    @torch.no_grad()
    def follow(self, clip: nn.Module) -> None:
        """Go a step towards the student."""
        if self.decay < 1:
            for mine, theirs in zip(self.clip.parameters(), clip.parameters(), strict=True):
                mine.lerp_(theirs, 1 - self.decay)
