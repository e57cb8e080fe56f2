"""What the loop and the optimizer see of a model under an objective."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import Text, image_tower, pixel_statistics

MAX_LOGIT_SCALE = math.log(100)


class Model(nn.Module, ABC):
    """An open_clip model with what an objective adds to it. Sizes are read from the model.

    The open_clip model's parameters have names that begin with "clip."; all others are new with the objective.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self._beside: list[nn.Module] = []
        self.clip: Any = clip
        self.text = Text(clip)
        visual: Any = clip.visual
        self.image = image_tower(visual)
        mean, std = pixel_statistics(visual)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def beside(self, module: nn.Module) -> Callable[..., Any]:
        """Keep a module that nothing trains: it moves with the model, but is in no state, optimizer or export.

        Returns its forward pass.
        """
        self._beside.append(module.requires_grad_(False))
        return module.__call__

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self._beside:
            module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def image_size(self) -> int:
        """Pixels of a side of the images that the tower takes. Raises UserError where they are not square."""
        (rows, columns), patch = self.image.grid, self.image.patch
        if rows != columns or patch[0] != patch[1]:
            raise UserError("the loader cuts square images of square patches, unlike this model's")
        return rows * patch[0]

    def pixels(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S]: uint8 is normalised here, on the device; floats are taken as they are."""
        if images.is_floating_point():
            return images
        return (images - self.get_buffer("pixel_mean")) / self.get_buffer("pixel_std")

    def after_step(self) -> None:
        """Called after each optimizer step."""

    def scale(self) -> Tensor:
        """The factor on the cosine, a scalar in float32 or better."""
        return wide(self.clip.logit_scale).exp().squeeze()

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the factor on the cosine at or below 100."""
        self.clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def compile_towers(self) -> None:
        """torch.compile each block of both towers in place: one compilation for all blocks of a tower."""
        for tower in (self.text, self.image):
            for block in tower.blocks:
                block.compile(dynamic=tower is self.text)  # captions differ in length from batch to batch

    def new_state(self) -> set[str]:
        """Names in the state dict that another run of the objective may start from."""
        return {name for name in self.state_dict() if not name.startswith("clip.")}

    @abstractmethod
    def compile_blocks(self) -> None:
        """torch.compile each transformer block in place."""


def wide(x: Tensor) -> Tensor:
    """Float32 where the tensor is narrower."""
    return x if x.dtype == torch.float64 else x.float()
