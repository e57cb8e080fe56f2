"""One image with its captions, as a source hands it over."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

MAX_BYTES: Final = 256 * 2**20  # of one image or text; anything larger is a mistake or an attack
IMAGE: Final = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class CaptionError:
    """A caption that cannot be used, in place of its text."""

    status: str  # missing_caption | bad_encoding
    error: str


@dataclass(frozen=True, slots=True)
class Item:
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
    status: str = "ok"
    error: str | None = None

    def rows(self) -> Iterator[tuple[str | None, str, str | None]]:
        """Yield (caption, status, error) for each caption: at least one row, whatever is missing."""
        for caption in self.captions or (None,):
            if not isinstance(caption, CaptionError):
                yield caption, self.status, self.error
            elif self.status == "ok":
                yield None, caption.status, caption.error
            else:
                yield None, self.status, self.error


def captions_of(value: Any) -> tuple[str | CaptionError, ...]:
    """Turn what a field holds (text, UTF-8 bytes, a list of them, nothing) into captions.

    White space around a caption goes; nothing else is changed.
    """
    if isinstance(value, list | tuple):
        return tuple(caption for one in value for caption in captions_of(one)) or captions_of(None)
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return (CaptionError("bad_encoding", f"caption is not UTF-8: {error}"),)
    if value is not None and not isinstance(value, str):
        return (
            CaptionError("missing_caption", f"caption is {json.dumps(value, default=str)[:80]}, no text"),
        )
    if not value or not value.strip():
        return (CaptionError("missing_caption", "caption is empty"),)
    if not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return (CaptionError("bad_encoding", "caption holds half of a surrogate pair"),)
    return (value.strip(),)
