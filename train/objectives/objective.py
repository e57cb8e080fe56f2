"""What the loop, the loader and the optimizer see of a model under an objective."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from macco.train.clip.towers import Text, image_tower, pixel_statistics


class Objective(nn.Module, ABC):
    """An open_clip model with what an objective adds to it. Sizes are read from the model."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip
        self.text = Text(clip)
        visual: Any = clip.visual
        self.image = image_tower(visual)
        mean, std = pixel_statistics(visual)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    @property
    @abstractmethod
    def hard_negatives(self) -> int:
        """Hard negative captions that each pair of a batch comes with."""

    def pixels(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S]: uint8 is normalised here, on the device; floats are taken as they are."""
        if images.is_floating_point():
            return images
        return (images - self.get_buffer("pixel_mean")) / self.get_buffer("pixel_std")

    def clamp_logit_scale(self) -> None:
        """Called after each optimizer step."""

    @abstractmethod
    def compile_blocks(self) -> None:
        """torch.compile each transformer block in place."""
