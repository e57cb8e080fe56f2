"""What a shard's file holds, as a digest: how the same input is known again, whatever its time stamp says."""

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from macco.pipeline.schema import Status
from macco.preprocess.graph.refusal import CaptionError
from macco.preprocess.sources import tar
from macco.preprocess.sources.shard import Shard
from macco.preprocess.sources.source_image import SourceImage

# Rows that stand for what is not there. They come last and go when their file is mended, so they are only counted.
STAND_INS: Final = (Status.BAD_ROW, Status.TRUNCATED_TAR, Status.DOWNLOAD_FAILED)

HEADS: Final = (2**17, 2**22)  # bytes of a tar in which its first sample is looked for


class State(Enum):
    """What a file has become since a shard of it was read."""

    SAME = "the same"
    LONGER = "longer: it begins with what it held"
    OTHER = "other"


class Content:
    """The images of one shard, in order: keys, captions, names and places, and the bytes that its own file holds.

    Not the bytes of image files that a table names, nor how its columns are called.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.images = 0
        self.others = 0  # stand-ins
        self.first: str | None = None
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, image: SourceImage) -> None:
        """Take the shard's next image."""
        if image.status in STAND_INS:
            self.others += 1
            return
        self.images += 1
        mine = image.source == self.url
        place = (image.offset, image.size) if mine else ()
        self._digest.update(_bytes((image.key, _texts(image), image.member, *place)))
        if mine and image.image:
            self._digest.update(image.image)
        if self.first is None:
            self.first = first_of(image)

    def digest(self) -> str:
        """Of the images so far."""
        return self._digest.hexdigest()

    def record(self) -> dict[str, Any]:
        """For JSON, as `state` reads it."""
        return {"images": self.images, "others": self.others, "digest": self.digest(), "first": self.first}


def first_of(image: SourceImage) -> str | None:
    """Name an image with its key and captions, wherever it lies; None where it has no bytes or no caption."""
    texts = _texts(image)
    if not image.image or not any(isinstance(text, str) for text in image.captions):
        return None
    return hashlib.blake2b(_bytes((image.key, texts)) + image.image, digest_size=16).hexdigest()


def first_in(shard: Shard) -> str | None:
    """`first_of` a shard's first image that has one; of a tar so little is fetched that many can be asked."""
    sizes = HEADS if shard.format == "webdataset" else (0,)
    for size in sizes:
        head = tar.begin(shard.url, shard.captions, shard.image, size) if size else shard.read()
        if first := next(filter(None, map(first_of, head)), None):
            return first
    return None


def state(shard: Shard, content: Mapping[str, Any]) -> State:
    """Read a shard's file again, and compare it with the Content that was recorded."""
    now, begins = Content(shard.url), content["images"] == 0
    for image in shard.glance():
        now.add(image)
        if now.images == content["images"] and not begins:
            if now.digest() != content["digest"]:
                return State.OTHER
            begins = True
        if now.images > content["images"]:
            return State.LONGER
    if not begins:
        return State.OTHER
    return State.SAME if now.others == content["others"] else State.LONGER


def _texts(image: SourceImage) -> tuple[str, ...]:
    return tuple(f"\0{one.status.value}" if isinstance(one, CaptionError) else one for one in image.captions)


def _bytes(told: tuple[Any, ...]) -> bytes:
    return repr(told).encode("utf-8", "backslashreplace")
