"""Where a mask is set, as index tensors."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """The set positions of a bool mask [B, N], in the layouts that the predictors compute with.

    M is the number of set positions. They are ordered by sample, then by position.
    Made on the CPU by the loader, so that the training step needs no device synchronisation.
    """

    sample: Tensor  # [M] int64: the row, 0..B-1
    position: Tensor  # [M] int64: the column, 0..N-1
    cell: Tensor  # [M] int64: place in [B * width], each sample's positions moved to the left
    count: Tensor  # [M] int64: how many positions of this sample are set
    width: int  # the most set positions in one sample, at least 1
    samples: int  # samples with any position set

    @classmethod
    def of(cls, mask: Tensor) -> Self:
        """Index a mask [B, N]."""
        counts = mask.sum(1)
        sample, position = mask.nonzero(as_tuple=True)
        width = max(1, int(counts.max())) if len(counts) else 1
        rank = mask.cumsum(1)[sample, position] - 1
        return cls(sample, position, sample * width + rank, counts[sample], width, int((counts > 0).sum()))

    def to(self, device: torch.device | str) -> Self:
        """Move the index tensors."""
        return replace(self, **{name: x.to(device, non_blocking=True) for name, x in self._tensors().items()})

    def pin_memory(self) -> Self:
        """Pin the index tensors."""
        return replace(self, **{name: x.pin_memory() for name, x in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}
