"""Crops of a batch at the size they were cut at: the device resizes all of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from macco.train.data.room import room

AT_ONCE: Final = 256  # crops: bounds what the device needs beside the batch

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Uncut:
    """B crops in the place of a batch's images: `to` makes [B, 3, side, side] uint8 of them, on the device.

    Those that are wider than high lie apart from the others, so that little is padded.
    """

    wide: Tensor  # [b, R, C, 3] uint8, padded at the bottom and on the right
    tall: Tensor  # [B - b, R', C', 3]
    wide_sizes: Tensor  # [b, 2] int64: rows and columns of each
    tall_sizes: Tensor  # [B - b, 2]
    place: Tensor  # [B] int64: of each crop among the wide and then the tall ones
    side: int

    @classmethod
    def of(cls, crops: Sequence[Pixels], side: int) -> Self:
        """Of pixels [rows, columns, 3]."""
        is_tall = np.array([crop.shape[0] > crop.shape[1] for crop in crops])
        place = np.empty(len(crops), np.int64)
        place[np.argsort(is_tall, kind="stable")] = np.arange(len(crops))
        (wide, wide_sizes), (tall, tall_sizes) = (
            _stack([crop for crop, turned in zip(crops, is_tall, strict=True) if turned == which])
            for which in (False, True)
        )
        return cls(wide, tall, wide_sizes, tall_sizes, torch.from_numpy(place), side)

    def part(self, start: int, stop: int) -> Self:
        """Those of the pairs [start, stop)."""
        place, count = self.place[start:stop], len(self.wide)
        rows = place.sort().values
        wide, tall = rows[rows < count], rows[rows >= count] - count
        return replace(
            self, wide=self.wide[wide], tall=self.tall[tall], wide_sizes=self.wide_sizes[wide],
            tall_sizes=self.tall_sizes[tall], place=place.argsort().argsort(),
        )  # fmt: skip

    def pin_memory(self) -> Self:
        """Put every tensor where a GPU can fetch it while the CPU works."""
        pinned: dict[str, Any] = {n: x.pin_memory() for n, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **pinned)

    def to(self, device: torch.device | str) -> Tensor:
        """The images [B, 3, side, side], uint8, on the device, without waiting for it."""
        wide, tall, wide_sizes, tall_sizes, place = (
            x.to(device, non_blocking=True)
            for x in (self.wide, self.tall, self.wide_sizes, self.tall_sizes, self.place)
        )
        parts = [
            resized(pixels[i : i + AT_ONCE], sizes[i : i + AT_ONCE], self.side)
            for pixels, sizes in ((wide, wide_sizes), (tall, tall_sizes))
            for i in range(0, len(pixels), AT_ONCE)
        ]
        return torch.cat(parts)[place]


def _stack(crops: Sequence[Pixels]) -> tuple[Tensor, Tensor]:
    sizes = np.array([crop.shape[:2] for crop in crops], np.int64).reshape(-1, 2)
    found = room((len(crops), *sizes.max(0, initial=1), 3))  # what is beyond a crop has no weight
    for place, crop in zip(found, crops, strict=True):
        place[: crop.shape[0], : crop.shape[1]] = crop
    return torch.from_numpy(found), torch.from_numpy(sizes)


def resized(pixels: Tensor, sizes: Tensor, side: int) -> Tensor:
    """Resize [n, R, C, 3] uint8, of which [n, 2] rows and columns count, to [n, 3, side, side] uint8.

    Bicubic and antialiased as `crops.resize`, columns first and rounded in between, but as two matrix products for
    all of them.
    """
    count, rows, columns, channels = pixels.shape
    across = pixels.permute(0, 1, 3, 2).float().reshape(count, rows * channels, columns)
    across = _bytes(across @ _weights(sizes[:, 1], columns, side).mT)
    down = _bytes(_weights(sizes[:, 0], rows, side) @ across.view(count, rows, channels * side))
    return down.view(count, side, channels, side).transpose(1, 2).contiguous().byte()


def _bytes(x: Tensor) -> Tensor:
    return x.round_().clamp_(0, 255)


def _weights(sizes: Tensor, longest: int, side: int) -> Tensor:
    """How much of each of `longest` pixels is in each of `side`, [n, side, longest]; the first sizes [n] count."""
    scale = (sizes.float() / side)[:, None, None]
    width = scale.clamp(min=1)  # one is widened to what it stands for; Pillow widens nothing that it enlarges
    place = torch.arange(longest, device=sizes.device) + 0.5
    centre = (torch.arange(side, device=sizes.device) + 0.5)[:, None] * scale
    away = ((place - centre) / width).abs()
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    found = torch.where(away < 1, near, torch.where(away < 2, far, 0.0)) * (place < sizes[:, None, None])
    return found / found.sum(2, keepdim=True)
