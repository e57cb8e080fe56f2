"""Images of samples: bytes from where they lie, a random crop of them, and nothing decoded larger than needed."""

import math
import os
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from macco.pipeline import pictures
from macco.pipeline.cache import as_cached
from macco.pipeline.pictures import ANY_PIXELS, ImageError, read_image_bytes
from macco.pipeline.urls import is_local
from macco.train.data.masks import Crop

# As torchvision's RandomResizedCrop has them; the scale is the paper's.
SCALE = (0.9, 1.0)
RATIO = (3 / 4, 4 / 3)
MARGIN = (
    256 / 224
)  # a JPEG is decoded at the smallest size whose short side is so much larger than the crop's


Pixels = NDArray[np.uint8]


class BrokenImageError(Exception):
    """An image that cannot be read or decoded; the message says why."""


@lru_cache(maxsize=256)
def _file(path: str) -> "_File":
    return _File(path)


class _File:
    """An open file that closes when it is no longer used."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def read(source: str, member: str | None, offset: int | None, size: int | None) -> bytes:
    """Read an image's encoded bytes; raise BrokenImageError where they are not there."""
    try:
        if offset is None or size is None or not is_local(source):
            return read_image_bytes(source, member, offset, size)
        # Held while it is read: the cache may have kept the file of another thread, or let this one go.
        file = _file(source)
        data = os.pread(file.number, size, offset)
    except (OSError, KeyError, ValueError) as error:
        raise BrokenImageError(f"{source}: {error}") from error
    if len(data) < size:
        raise BrokenImageError(f"{source} ends before byte {offset} + {size}")
    return data


def decode(data: bytes, side: int) -> Pixels:
    """Decode as extraction does, to [rows, columns, 3]; a JPEG to no more than a crop of `side` needs.

    Raises BrokenImageError.
    """
    if (cached := as_cached(data)) is not None:
        return cached
    try:
        short = math.ceil(side * MARGIN)
        return pictures.decode(data, max_pixels=ANY_PIXELS, min_side=1, short_side=short).pixels
    except ImageError as error:
        raise BrokenImageError(f"{error.status}: {error}") from error


def draw_crop(width: int, height: int, random: np.random.Generator) -> Crop:
    """Draw what torchvision's RandomResizedCrop(scale=SCALE, ratio=RATIO) would cut out."""
    (low, high), (narrow, broad) = SCALE, map(math.log, RATIO)
    for _ in range(10):  # the same numbers as Generator.uniform's, which takes longer for one
        area = width * height * (low + (high - low) * random.random())
        ratio = math.exp(narrow + (broad - narrow) * random.random())
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
            return Crop(top, left, h, w, width, height)
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return Crop((height - h) // 2, (width - w) // 2, h, w, width, height)


def cut(image: Pixels, crop: Crop) -> Pixels:
    """The pixels of a crop."""
    return image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def resize(pixels: Pixels, side: int) -> Pixels:
    """Resize pixels [rows, columns, 3], bicubic, to [3, side, side].

    As Pillow, which takes five times as long, but for its rounding in between: by less than half a level on average.
    """
    # PyTorch warns of memory that is only for reading, as a cache's and Pillow's is.
    planes = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
    resized = interpolate(planes[None], (side, side), mode="bicubic", antialias=True)[0]
    found: Pixels = resized.contiguous().numpy()
    return found


def whole(image: Pixels | Image.Image, side: int) -> Pixels:
    """All of the image, squeezed to [3, side, side]: what lies at its edges is seen too."""
    return resize(np.asarray(image), side)
