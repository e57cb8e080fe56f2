"""Bytes to pixels behind guards: what a crawl calls an image may be anything."""

import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

MAX_SIDE: Final = 30_000  # pixels; JPEG itself ends at 65,535
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_ORIENTATION = 0x0112  # EXIF tag: 1 is upright
_TURNS: dict[object, Transpose] = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
# All that Pillow's parsers raise on damaged files; memory and programming errors pass through.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
)


class ImageError(Exception):
    """An image that cannot be used: `status` is the short name for the store, the message is for people."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Decoded:
    """An RGB image; `width` and `height` are the original's in pixels, upright, before any shrinking."""

    image: Image.Image
    width: int
    height: int


def decode(
    data: bytes, *, max_pixels: int = 100_000_000, min_side: int = 2, max_side: int | None = None
) -> Decoded:
    """Decode the first frame, turn it upright by its EXIF tag, and make it RGB (transparency on white).

    With `max_side`, an image whose long side has at least twice as many pixels is shrunk by a whole factor,
    to between `max_side` and twice that: cheap (a JPEG is decoded small straight away), and whoever needs
    an exact size still resamples only once. Raises ImageError: image_unsupported, image_corrupt, image_truncated,
    image_too_large (by the header, before anything is decoded), image_too_small.
    """
    with warnings.catch_warnings():  # Pillow warns of bombs and odd metadata: both are dealt with here
        warnings.simplefilter("ignore")
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                _check_size(width, height, max_pixels, min_side)
                if max_side is not None and max(width, height) > max_side:
                    scale = max_side / max(width, height)
                    image.draft("RGB", (ceil(width * scale), ceil(height * scale)))
                image.load()
                turn = _TURNS.get(_orientation(image))
                if turn in _SIDEWAYS:
                    width, height = height, width
                upright = image if turn is None else image.transpose(turn)
                picture = _rgb(upright)
                factor = 1 if max_side is None else max(picture.size) // max_side
                return Decoded(picture.reduce(factor) if factor > 1 else picture, width, height)
        except UnidentifiedImageError as error:
            if data.startswith(_MAGIC):
                raise ImageError("image_corrupt", f"unreadable header of {len(data)} bytes") from error
            raise ImageError("image_unsupported", f"not an image: starts with {data[:16]!r}") from error
        except Image.DecompressionBombError as error:
            raise ImageError("image_too_large", str(error)) from error
        except _BROKEN as error:
            cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
            status = "image_truncated" if cut else "image_corrupt"
            raise ImageError(status, f"{type(error).__name__}: {error}") from error


def _check_size(width: int, height: int, max_pixels: int, min_side: int) -> None:
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limits = f"{max_pixels:,} pixels and {MAX_SIDE:,} on a side"
        raise ImageError("image_too_large", f"{width} x {height} pixels; the limits are {limits}")
    if min(width, height) < min_side:
        raise ImageError("image_too_small", f"{width} x {height} pixels; the least side is {min_side}")


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION)
    except _BROKEN:  # damaged metadata is no reason to lose the picture
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would clip to white
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError("image_unsupported", "floating-point pixels")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
