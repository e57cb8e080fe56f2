"""A row's image: its bytes, its pixels behind guards (what a crawl calls an image may be anything), and its hash.

Whoever looks at a picture decodes it here: what extraction, training, the cache and an audit see is the same.
"""

import lzma
import struct
import tarfile
import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import SEEK_END, BytesIO
from math import ceil
from typing import IO, Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Transpose
from simplejpeg import decode_jpeg

from macco.pipeline.content import HEAD, PARQUET, compression, kind, open_plain
from macco.pipeline.dhash import dhash
from macco.pipeline.schema import Status
from macco.pipeline.urls import open_url

MAX_PIXELS: Final = 100_000_000  # what a crawl is let in with
ANY_PIXELS: Final = 200_000_000  # for images that are let in already: more than Pillow opens at all
MIN_SIDE: Final = 2  # pixels
MAX_SIDE: Final = 30_000  # pixels; JPEG itself ends at 65,535
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")

_END = b"\xff\xd9"  # of a JPEG
_PHOTOMETRIC = 0x0106  # TIFF tag: 0 is white at zero
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
_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP",
    b"\xffO\xffQ",
)
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
    """An image that cannot be used: `status` is for the store, the message for people."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Measured:
    """An image's width and height in pixels: the original's, upright."""

    width: int
    height: int


@dataclass(frozen=True)
class Decoded(Measured):
    """An RGB image, which may have been shrunk: `width` and `height` are as they were before."""

    held: Image.Image | NDArray[np.uint8]  # [rows, columns, 3]

    @property
    def image(self) -> Image.Image:
        """For Pillow. An array becomes it for good: both together would weigh twice."""
        if isinstance(self.held, Image.Image):
            return self.held
        image = Image.fromarray(self.held)
        object.__setattr__(self, "held", image)
        return image

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The pixels, [rows, columns, 3]."""
        return np.asarray(self.held)

    @cached_property
    def code(self) -> int:
        """Its `dhash`."""
        return dhash(self.image)


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
    max_side: int | None = None,
    short_side: int | None = None,
    plain: bool = False,
) -> Decoded:
    """Decode the first frame, turn it upright by its EXIF tag, and make it RGB (transparency on white).

    With `max_side`, an image whose long side has at least twice as many pixels is shrunk by a whole factor,
    to between `max_side` and twice that: cheap (a JPEG is decoded small straight away), and whoever needs
    an exact size still resamples only once. With `short_side` a JPEG, and nothing else, is decoded at the smallest
    of its own sizes whose short side has so many pixels. `plain` pictures are what benchmarks' own loaders make of
    them: of any format, not turned, transparency dropped.

    Raises ImageError: image_unsupported, image_corrupt, image_truncated, image_too_large (by the header, before
    anything is decoded), image_too_small.
    """
    with warnings.catch_warnings():  # Pillow warns of bombs and odd metadata: both are dealt with here
        warnings.simplefilter("ignore")
        try:
            with Image.open(BytesIO(data), formats=None if plain else FORMATS) as image:
                width, height = image.size
                _check_size(width, height, max_pixels, min_side)
                scale = max_side / max(width, height) if max_side is not None else 1
                scale = short_side / min(width, height) if short_side is not None else scale
                if scale < 1:
                    image.draft("RGB", (ceil(width * scale), ceil(height * scale)))
                factor = 1 if max_side is None else max(image.size) // max_side
                own_size = image.size == (width, height) and factor <= 1
                if own_size and (pixels := _jpeg(image, data, plain)) is not None:
                    return Decoded(width, height, pixels)
                image.load()
                turn = None if plain else _TURNS.get(_orientation(image))
                if turn in _SIDEWAYS:
                    width, height = height, width
                upright = image if turn is None else image.transpose(turn)
                picture = _rgb(upright, plain)
                if image.mode.startswith("I") and _is_negative(image):
                    picture = ImageOps.invert(picture)
                return Decoded(width, height, picture.reduce(factor) if factor > 1 else picture)
        except UnidentifiedImageError as error:
            if data.startswith(_MAGIC):
                raise ImageError(Status.IMAGE_CORRUPT, f"unreadable header of {len(data)} bytes") from error
            raise ImageError(Status.IMAGE_UNSUPPORTED, f"not an image: starts with {data[:16]!r}") from error
        except Image.DecompressionBombError as error:
            raise ImageError(Status.IMAGE_TOO_LARGE, str(error)) from error
        except _BROKEN as error:
            cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
            status = Status.IMAGE_TRUNCATED if cut else Status.IMAGE_CORRUPT
            raise ImageError(status, f"{type(error).__name__}: {error}") from error


def _jpeg(image: Image.Image, data: bytes, plain: bool) -> NDArray[np.uint8] | None:
    """The pixels of an upright JPEG, Pillow's bit for bit but sooner; None where Pillow is to be asked."""
    if (
        image.format != "JPEG"
        or image.mode != "RGB"
        or not (plain or _TURNS.get(_orientation(image)) is None)
    ):
        return None
    try:
        pixels: NDArray[np.uint8] = decode_jpeg(data, "RGB")
    except ValueError:  # Pillow makes something of it, or says what is wrong
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


def measure(stream: IO[bytes], *, max_pixels: int = MAX_PIXELS) -> Measured:
    """Width and height of the image in a file: of a JPEG with both its ends by its header, else of what is decoded.

    Damage between the ends of a JPEG is not seen. Raises ImageError as `decode` does, and OSError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=FORMATS) as image:
                if image.format == "JPEG" and _last(stream, len(_END)) == _END:
                    width, height = image.size
                    _check_size(width, height, max_pixels, MIN_SIDE)
                    sideways = _TURNS.get(_orientation(image)) in _SIDEWAYS
                    return Measured(height, width) if sideways else Measured(width, height)
        except (Image.DecompressionBombError, *_BROKEN):
            pass  # whoever decodes it says why
    stream.seek(0)
    found = decode(stream.read(), max_pixels=max_pixels)
    return Measured(found.width, found.height)


def _last(stream: IO[bytes], size: int) -> bytes:
    stream.seek(-size, SEEK_END)
    return stream.read()


def _check_size(width: int, height: int, max_pixels: int, min_side: int) -> None:
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limits = f"{max_pixels:,} pixels and {MAX_SIDE:,} on a side"
        raise ImageError(Status.IMAGE_TOO_LARGE, f"{width} x {height} pixels; the limits are {limits}")
    if min(width, height) < min_side:
        raise ImageError(Status.IMAGE_TOO_SMALL, f"{width} x {height} pixels; the least side is {min_side}")


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION)
    except _BROKEN:  # damaged metadata is no reason to lose the picture
        return None


def _is_negative(image: Image.Image) -> bool:
    """Tell a TIFF whose zero is white: Pillow turns those of 8 bits, and leaves those of 16."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_PHOTOMETRIC, 1) == 0)


def _rgb(image: Image.Image, plain: bool) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would clip to white
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise ImageError(
                Status.IMAGE_UNSUPPORTED, f"pixels of {deep.min()} to {deep.max()}: more than 16 bits"
            )
        return Image.fromarray((deep // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(Status.IMAGE_UNSUPPORTED, "floating-point pixels")
    if image.has_transparency_data and not plain:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def read_image_bytes(source: str, member: str | None, offset: int | None, size: int | None) -> bytes:
    """Return the encoded image of a row of `samples`.

    From a range of a tar where `offset` says which, else, as the source's first bytes tell, from a member of
    a compressed tar (slow: it is read up to there), a cell of a Parquet file, or an image file. Raises
    OSError, or KeyError where the source no longer holds the image.
    """
    if offset is not None:
        with open_url(source) as stream:
            stream.seek(offset)
            data = stream.read(size or -1)
        if len(data) != size:
            raise OSError(f"{source} ends before byte {offset} + {size}")
        return data
    with open_url(source) as stream:
        head = stream.read(HEAD)
        held = kind(head)
        if member is None or (held is None and compression(head) is None):
            return head + stream.read()
    try:
        if held == PARQUET:
            column, _, row = member.rpartition("/")
            return _cell(source, column, int(row))
        return _member(source, member)
    except (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, pa.ArrowException) as error:
        raise OSError(f"{source} cannot be read: {error}") from error


def _member(source: str, member: str) -> bytes:
    names: dict[str, str] = {"encoding": "utf-8", "errors": "backslashreplace"}  # as they were written down
    with (
        open_plain(source) as stream,
        tarfile.open(fileobj=stream, mode="r|", ignore_zeros=True, **names) as tar,  # type: ignore[call-overload]
    ):
        for info in tar:
            if info.name == member and (file := tar.extractfile(info)) is not None:
                return cast(bytes, file.read())
    raise KeyError(f"{source} has no member {member}")


@lru_cache(maxsize=2)
def _row_group(source: str, column: str, group: int) -> Any:
    with open_url(source) as stream:
        return pq.ParquetFile(stream).read_row_group(group, columns=[column]).column(column)


@lru_cache(maxsize=16)
def _row_group_sizes(source: str) -> list[int]:
    with open_url(source) as stream:
        metadata = pq.ParquetFile(stream).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _cell(source: str, column: str, row: int) -> bytes:
    for group, rows in enumerate(_row_group_sizes(source)):
        if row < rows:
            value = _row_group(source, column, group)[row].as_py()
            data = value["bytes"] if isinstance(value, dict) else value
            if not isinstance(data, bytes):
                raise KeyError(f"{source} has no image bytes in row {row} of {column}")
            return data
        row -= rows
    raise KeyError(f"{source} has no such row")
