"""The difference hash of a picture: by it, and nothing else, pictures of stores of any age are told to be the same."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

COLUMNS: Final = 9
ROWS: Final = 8

# Pillow computes with whole numbers: a weight of 1 is 2^22. Split in two parts, sums of them are exact in float32.
_ONE: Final = 22
_SPLIT: Final = 7
_EXACT: Final = 2**24
_ALONE: Final = 2**18  # multiplications that OpenBLAS makes in one thread
_LEAST: Final = 64  # pixels: of smaller pictures Pillow is asked

Floats = NDArray[np.floating[Any]]


def dhash(image: Image.Image) -> int:
    """Return the 64-bit difference hash: bit 63 - (8 row + column) says "brighter to the right".

    The same as `imagehash.dhash`, so that hashes of other tools can be compared.
    """
    small = _small(image.convert("L"))
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _small(grey: Image.Image) -> NDArray[np.uint8]:
    """Resize to 9 x 8 by Lanczos as Pillow does, bit for bit, but as a product of matrices: thrice as fast.

    Of high pictures Pillow takes the columns first, from some version on: those are left to it.
    """
    width, height = grey.size
    if min(width, height) < _LEAST or 2 * height > 3 * width or (parts := _parts(width)) is None:
        return np.asarray(grey.resize((COLUMNS, ROWS), Resampling.LANCZOS))
    high, low = np.split(_product(np.asarray(grey).astype(np.float32), parts), 2, axis=1)
    across = _pixels(high.astype(np.float64) * 2**_SPLIT + low)
    return _pixels(_weights(height, ROWS) @ across).astype(np.uint8)


def _product(rows: NDArray[np.float32], parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """rows @ parts in pieces of so few rows that OpenBLAS starts no threads: they spin (benchmarks/extraction.py)."""
    size = max(1, _ALONE // parts.size)
    whole = len(rows) // size * size
    pieces = rows[:whole].reshape(whole // size, size, rows.shape[1]) @ parts
    return np.concatenate([pieces.reshape(whole, parts.shape[1]), rows[whole:] @ parts])


def _pixels(sums: Floats) -> Floats:
    found: Floats = np.floor((sums + 2 ** (_ONE - 1)) / 2**_ONE).clip(0, 255)
    return found


@lru_cache(maxsize=256)
def _parts(width: int) -> NDArray[np.float32] | None:
    """The weights of a row's pixels, [width, 18]: high bits, then low ones; None where sums would not be exact."""
    weights = _weights(width, COLUMNS).T
    high = np.round(weights / 2**_SPLIT)
    parts = np.concatenate([high, weights - high * 2**_SPLIT], 1)
    return parts.astype(np.float32) if 255 * np.abs(parts).sum(0).max() < _EXACT else None


@lru_cache(maxsize=256)
def _weights(length: int, out: int) -> NDArray[np.float64]:
    """Pillow's weights of `length` pixels in each of `out`, whole numbers, [out, length]. It only makes smaller."""
    found = np.zeros((out, length))
    scale = length / out
    for place, row in enumerate(found):
        centre = (place + 0.5) * scale
        first, last = max(int(centre - 3 * scale + 0.5), 0), min(int(centre + 3 * scale + 0.5), length)
        away = (np.arange(first, last) - centre + 0.5) / scale
        weight = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0)
        weight *= 2**_ONE / weight.sum()
        row[first:last] = np.trunc(weight + np.copysign(0.5, weight))
    return found
