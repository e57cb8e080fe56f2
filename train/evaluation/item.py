"""What a benchmark asks: some pictures against some captions."""

from dataclasses import dataclass
from pathlib import PurePath


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
    captions: tuple[str, ...]
    category: str = ""  # what means are taken over: a relation, a pair of attributes, a set of photographs
