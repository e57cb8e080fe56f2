"""What the loader hands to the model: one batch, and where its masks are set."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

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
    def of(cls, mask: Tensor) -> "Slots":
        """Index a mask [B, N]."""
        counts = mask.sum(1)
        sample, position = mask.nonzero(as_tuple=True)
        width = max(1, int(counts.max())) if len(counts) else 1
        rank = mask.cumsum(1)[sample, position] - 1
        return cls(sample, position, sample * width + rank, counts[sample], width, int((counts > 0).sum()))

    def to(self, device: torch.device | str) -> "Slots":
        """Move the index tensors."""
        names = ("sample", "position", "cell", "count")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True)
class Batch:
    """B image-caption pairs with their masks. L is the longest caption's token count, P the patch count."""

    images: Tensor  # [B, 3, S, S]: uint8 as decoded, or float already normalised
    tokens: Tensor  # [B, L] int64, start and end tokens included, padded on the right
    text_mask: Tensor  # [B, L] bool: tokens to mask
    patch_mask: Tensor  # [B, P] bool: patches to mask, row by row, without CLS
    ids: list[str]  # B sample ids
    negatives: Tensor | None = None  # [B, K, L'] int64: hard negative captions
    negative_valid: Tensor | None = None  # [B, K] bool: which of them exist
    text_slots: Slots = field(default=None)  # type: ignore[assignment]  # made from text_mask where not given
    patch_slots: Slots = field(default=None)  # type: ignore[assignment]
    # Of the joint objectives: V regions of each image, padded at the end. With features there are no images [B, 0].
    boxes: Tensor | None = None  # [B, V, 4]: x0, y0, x1, y1 in 0..1 of the image as it is seen
    regions: Tensor | None = None  # [B, V] bool: regions that are no padding
    features: Tensor | None = None  # [B, V, D] float16, of a frozen tower
    pooled: Tensor | None = None  # [B, D] float16: the whole images, as the tower pools them

    def __post_init__(self) -> None:
        if self.negatives is not None and self.negative_valid is None:
            object.__setattr__(
                self, "negative_valid", torch.ones_like(self.negatives[..., 0], dtype=torch.bool)
            )
        if self.text_slots is None:
            object.__setattr__(self, "text_slots", Slots.of(self.text_mask))
        if self.patch_slots is None:
            object.__setattr__(self, "patch_slots", Slots.of(self.patch_mask))

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> "Batch":
        """Move every tensor, without waiting for the copy."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor | Slots)
        }
        return replace(self, **moved)

    def split(self, size: int) -> Iterator["Batch"]:
        """Cut into micro-batches of `size` pairs (the last may be smaller). Call it before `to`."""
        for start in range(0, len(self), size):
            part: dict[str, Any] = {
                name: value[start : start + size]
                for name, value in vars(self).items()
                if isinstance(value, Tensor | list)
            }
            yield Batch(**part)
