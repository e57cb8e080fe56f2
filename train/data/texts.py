"""Texts that belong to the pairs of a batch, some to each: phrases of captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextSet:
    """n texts, any number to a pair; u of them differ, and only those need to be encoded. Ordered by owner."""

    tokens: Tensor  # [u, L] int64: the distinct texts
    which: Tensor  # [n] int64: each text's place among these
    owner: Tensor  # [n] int64: the place of its pair in the batch
    ids: Tensor  # [n] int64: equal where texts are, in any batch
    patches: Tensor | None = None  # [n, P] bool: the patches of the owner's image that it speaks of

    @classmethod
    def of(
        cls,
        texts: Sequence[Sequence[Any]],
        pad: Callable[[Sequence[Any]], Tensor],
        number: Callable[[Any], int],
        patches: Tensor | None = None,
    ) -> Self:
        """Of the token ids of each pair's texts; at least one of all. number: of token ids, equal where they are."""
        distinct: dict[int, tuple[int, Any]] = {}
        ids = [number(one) for own in texts for one in own]
        flat = [one for own in texts for one in own]
        for name, one in zip(ids, flat, strict=True):
            distinct.setdefault(name, (len(distinct), one))
        owner = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(own) for own in texts]))
        which = torch.tensor([distinct[name][0] for name in ids])
        return cls(pad([one for _, one in distinct.values()]), which, owner, torch.tensor(ids), patches)

    def __len__(self) -> int:
        return len(self.owner)

    def part(self, start: int, stop: int) -> Self:
        """Those of the pairs [start, stop), as if they were all."""
        rows = (self.owner >= start) & (self.owner < stop)
        kept, which = torch.unique(self.which[rows], return_inverse=True)
        patches = None if self.patches is None else self.patches[rows]
        return type(self)(self.tokens[kept], which, self.owner[rows] - start, self.ids[rows], patches)

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor, without waiting for the copy."""
        return replace(self, **{n: x.to(device, non_blocking=True) for n, x in self._tensors().items()})

    def pin_memory(self) -> Self:
        """Put every tensor where a GPU can fetch it while the CPU works."""
        return replace(self, **{name: x.pin_memory() for name, x in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def joined(sets: Sequence[TextSet], pairs: Sequence[int]) -> TextSet:
    """The sets of micro-batches of so many pairs as one; without tokens, which are encoded apart."""
    firsts = torch.tensor([0, *pairs]).cumsum(0).tolist()
    owner = torch.cat([one.owner + first for one, first in zip(sets, firsts, strict=False)])
    patches = [one.patches for one in sets if one.patches is not None]
    nothing = owner.new_zeros(0)
    ids = torch.cat([one.ids for one in sets])
    return TextSet(nothing, nothing, owner, ids, torch.cat(patches) if patches else None)
