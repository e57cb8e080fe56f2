"""What the loader hands to an objective: image-caption pairs, to which an objective's own batches add."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B image-caption pairs. L is the longest caption's token count.

    A subclass adds tensors whose first dimension is B, and anything with `to` and `pin_memory`. That is cut by its
    `part` (see TextSet), or, where it has none, made anew of the tensors for each part of `split`.
    """

    # [B, 3, S, S]: uint8 as decoded, or float already normalised. With data.crop=device what they are made of, until
    # `to` (see Uncut).
    images: Tensor
    tokens: Tensor  # [B, L] int64, start and end tokens included, padded on the right
    ids: list[str]  # B sample ids
    negatives: Tensor | None = None  # [B, K, L'] int64: hard negative captions
    negative_valid: Tensor | None = None  # [B, K] bool: which of them exist
    # [B], [B], [B, K] int64: equal where images are, or captions; None: all differ (see losses.pairs)
    image_ids: Tensor | None = None
    caption_ids: Tensor | None = None
    negative_ids: Tensor | None = None

    def __post_init__(self) -> None:
        if self.negatives is not None and self.negative_valid is None:
            object.__setattr__(
                self, "negative_valid", torch.ones_like(self.negatives[..., 0], dtype=torch.bool)
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor, without waiting for the copy."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)
            for name, value in self._movable().items()
        }
        return replace(self, **moved)

    def pin_memory(self) -> Self:
        """Put every tensor where a GPU can fetch it while the CPU works."""
        return replace(self, **{name: value.pin_memory() for name, value in self._movable().items()})

    def _movable(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if hasattr(value, "pin_memory")}

    def split(self, size: int) -> Iterator[Self]:
        """Cut into micro-batches of `size` pairs (the last may be smaller). Call it before `to`."""
        for start in range(0, len(self), size):
            part: dict[str, Any] = {
                name: value[start : start + size]
                for name, value in vars(self).items()
                if isinstance(value, Tensor | list)
            }
            cut = {name: value for name, value in vars(self).items() if hasattr(value, "part")}
            part |= {name: value.part(start, start + size) for name, value in cut.items()}
            yield type(self)(**part)
