"""What every benchmark is: official files to items, scores to right or wrong, right or wrong to figures."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from macco.pipeline.errors import UserError
from macco.train.evaluation.item import Item, Picture, text_or_none
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean, mean_of
from macco.train.evaluation.manifest import MissingDataError, Places, load_benchmark_manifest
from macco.train.evaluation.rules import first_best


class Benchmark(ABC):
    """A benchmark whose items are pictures against captions.

    The default rule: one picture, caption 0 is right, and it must score strictly above all others.
    """

    name: ClassVar[str]
    texts: ClassVar[bool] = False  # whether captions are compared with each other too

    def __init__(self, places: Places) -> None:
        self.places = places
        self.manifest = load_benchmark_manifest(self.name)
        self.absent: list[str] = []  # lines about subsets whose file is not there

    @abstractmethod
    def read(self, subset: str, path: Path) -> Iterable[Item]:
        """Items of one official file."""

    @abstractmethod
    def figures(self, judged: Judged) -> dict[str, Mean]:
        """The figures that are reported, the headline first."""

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        """Decide items of one shape: scores [N, I, C], caption similarities [N, C (C - 1) / 2]."""
        return first_best(scores[:, 0])

    def items(self) -> list[Item]:
        """All items of the files that are there; `absent` says which are not.

        Raises:
            MissingDataError: none is there.
            UserError: a file is not what the benchmark published.
        """
        items: list[Item] = []
        self.absent = []
        found = False
        for subset, file in self.manifest.files.items():
            try:
                path = self.places.file(self.manifest, subset)
            except MissingDataError as error:
                if not file.optional:
                    self.absent.append(str(error))
                continue
            found = True
            _reading.row = ""
            try:
                items += map(_checked, self.read(subset, path))
            except (
                KeyError,
                TypeError,
                IndexError,
                ValueError,
                AttributeError,
                SyntaxError,
                csv.Error,
            ) as error:
                raise UserError(
                    f"{self.name}: {path}{_reading.row} has not the published form ({type(error).__name__}: {error}); "
                    f"{self.manifest.get}"
                ) from error
        if not found:
            raise MissingDataError(self.absent[0])
        return items

    def picture(self, collection: str, path: str, crop: tuple[int, int, int, int] | None = None) -> Picture:
        """A picture of an image collection."""
        return Picture(str(self.places.picture(collection, path)), crop=crop)

    def subsets(self, judged: Judged, criterion: str = "right") -> dict[str, Mean]:
        """A figure for each described subset."""
        return {subset: judged.mean(subset, criterion=criterion) for subset in self.manifest.files}

    def macro(self, judged: Judged, subsets: Iterable[str], criterion: str = "right") -> Mean:
        """Each subset with the same weight."""
        return mean_of(judged.mean(subset, criterion=criterion) for subset in subsets)


def _checked(item: Item) -> Item:
    """The item with None for each caption that is no text: it is counted, and not scored."""
    return replace(item, captions=tuple(map(text_or_none, item.captions)))


def read_json(path: Path) -> Any:
    """Raises UserError where the file is not there, or is no JSON."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"no file {path}: check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): download it again") from error


class _Reading:
    """Which row of a file is being read: where that ends in an error, it is named."""

    row = ""


_reading = _Reading()
T = TypeVar("T")


def each(rows: Iterable[T], what: str = "row", first: int = 0) -> Iterator[tuple[int, T]]:
    """Rows with their numbers, as `enumerate`; what goes wrong until the next is asked for is of that row."""
    own = iter(rows)
    for number in count(first):
        _reading.row = f", {what} {number},"
        try:
            row = next(own)
        except StopIteration:
            _reading.row = ""
            return
        yield number, row


def read_lines(path: Path) -> Iterator[Any]:
    """The values of JSON lines. Raises ValueError for a line that is none."""
    for _, line in each(path.read_text("utf-8-sig").splitlines(), "line", 1):
        yield json.loads(line)


def read_csv(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a CSV file with a header; None for an empty cell. Raises ValueError where a row has other cells."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for _, row in each(csv.DictReader(stream, strict=True)):
            if None in row or None in row.values():
                raise ValueError(f"a row of {path.name} has not the cells of its header")
            yield {key: value or None for key, value in row.items()}


def numbered(rows: Any) -> Iterator[tuple[str, Any]]:
    """Rows with their names: keys of a dictionary, places in a list."""
    names = list(rows) if isinstance(rows, dict) else range(len(rows))
    for name in names:
        _reading.row = f", row {name},"
        yield str(name), rows[name]
    _reading.row = ""
