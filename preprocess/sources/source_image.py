"""One image with its captions, as a source hands it over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from macco.pipeline.schema import OK, Status
from macco.preprocess.graph.refusal import CaptionError

MAX_BYTES: Final = 256 * 2**20  # of one image or text; anything larger is a mistake or an attack
# Endings of images, lower case, in order of preference; the last are seen and refused by name, not overlooked.
IMAGE: Final = (
    *(
        "jpg",
        "jpeg",
        "png",
        "webp",
        "jfif",
        "jpe",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "avif",
        "jp2",
        "j2k",
        "ppm",
        "pgm",
    ),
    *("heic", "heif", "jxl", "svg", "ico", "tga", "psd", "dib"),
)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a shard, or one thing that should have been an image.

    `status` is about the image and the sample as a whole; a caption that is unusable for reasons of its
    own is a CaptionError. `key` is unique within its shard. `offset` and `size` (bytes) say where the
    image lies inside `source`; `offset` is None where `source` is the image file or is compressed.
    """

    key: str
    captions: tuple[str | CaptionError, ...]
    image: bytes | None
    source: str
    member: str | None = None
    offset: int | None = None
    size: int | None = None
    status: Status = OK
    error: str | None = None

    def rows(self) -> Iterator[tuple[str | None, Status, str | None]]:
        """Yield (caption, status, error) for each caption: at least one row, whatever is missing."""
        for caption in self.captions or (None,):
            if not isinstance(caption, CaptionError):
                yield caption, self.status, self.error
            elif self.status == OK:
                yield None, caption.status, caption.error
            else:
                yield None, self.status, self.error
