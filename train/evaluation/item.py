"""What a benchmark asks: some pictures against some captions."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, or a cell of a Parquet file ("column/row"); `crop` is x, y, width, height in pixels."""

    source: str
    member: str | None = None
    crop: tuple[int, int, int, int] | None = None

    def __str__(self) -> str:
        cell = "" if self.member is None else f"#{self.member}"
        crop = "" if self.crop is None else "@" + ",".join(map(str, self.crop))
        return f"{PurePath(self.source).name}{cell}{crop}"


@dataclass(frozen=True, slots=True)
class Item:
    """One question: every picture is scored against every caption. What is right is the benchmark's to say."""

    subset: str
    name: str  # unique in its subset
    pictures: tuple[Picture, ...]
    captions: tuple[str | None, ...]  # None: the file has no text there
    category: str = ""  # what means are taken over: a relation, a pair of attributes, a set of photographs

    @property
    def texts(self) -> tuple[str, ...]:
        """The captions that are there."""
        return tuple(caption for caption in self.captions if caption is not None)

    @property
    def complete(self) -> bool:
        """Whether no caption is missing."""
        return None not in self.captions


def text_or_none(caption: Any) -> str | None:
    """A caption as a file gives it; None for what is no text, or holds half of a surrogate pair."""
    if not isinstance(caption, str):
        return None
    try:
        caption.encode()
    except UnicodeEncodeError:
        return None
    return caption
