"""The records of a MACCO TSV: where each lies in the file, which of them are captions of one image, what each says.

The file is read as Python's csv module writes it, quotes and lines inside them included; no line is lost in another,
for one whose quotes do not come out is read as it stands. What is kept of a record is a
few numbers, so that millions need no memory to speak of; its text is read again where it is wanted.
"""

import csv
import io
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from macco.pipeline.errors import UserError
from macco.preprocess.exchange.literals import literal, phrase_boxes, words
from macco.preprocess.sources.index import index

COLUMNS: Final = (
    "title", "filepath", "object_list", "relation_list", "attribute_list", "relation_phrase_list",
    "attribute_phrase_list", "relation_attribute_phrase_bbox_list", "neg_caption", "neg_image",
)  # fmt: skip
READERS: Final = dict.fromkeys(COLUMNS[2:7], words) | {
    COLUMNS[7]: phrase_boxes, "neg_caption": words, "neg_image": literal
}  # fmt: skip
IMPORTED: Final = "macco-tsv"  # the setting of a store that was made of such a TSV
LONGEST: Final = 2**24  # characters of a cell

_DIGEST: Final = 16  # bytes


class Record(NamedTuple):
    """One record of the file."""

    line: int  # its last one, from 1 on
    data: bytes
    cells: list[str]  # bytes that are not UTF-8 stay what they are, as surrogates


def records(path: Path) -> Iterator[Record]:
    """The records of a file, header and empty ones too. One that csv cannot read has no cells."""
    csv.field_size_limit(LONGEST)
    try:
        stream = path.open(encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    with stream:
        waiting, taken = deque[str](), list[str]()
        number, width = 0, None

        def lines() -> Iterator[str]:
            while (line := waiting.popleft() if waiting else next(stream, None)) is not None:
                taken.append(line)
                yield line

        reader = _reader(lines())
        while True:
            try:
                cells, odd = next(reader, None), False
            except csv.Error as error:
                cells, odd = [], not _too_long(error)
            # Of a record's own lines one at most has all its tabs.
            if len(taken) > 1 and width is not None:
                odd = odd or sum(line.count("\t") >= width - 1 for line in taken) > 1
            if cells is None and not taken:
                return
            if odd:  # an open quote would swallow the lines that follow
                waiting.extendleft(reversed(taken[1:]))
                del taken[1:]
                cells, reader = _as_it_stands(taken[0]), _reader(lines())
            number, width = number + len(taken), width or len(cells or [])
            yield Record(number, "".join(taken).encode("utf-8", "surrogateescape"), cells or [])
            taken.clear()


def _reader(lines: Iterable[str]) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter="\t", strict=True)


def _as_it_stands(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def _too_long(error: csv.Error) -> bool:
    return "field larger" in str(error)


def _cells(record: str) -> list[str]:
    """Of one record; of a line whose quotes do not come out, a quote is a character like any other."""
    try:
        return next(_reader(io.StringIO(record, newline="")))
    except csv.Error as error:
        if _too_long(error):
            raise
        return _as_it_stands(record)


def header_of(record: Record | None, path: Path) -> list[str]:
    """The columns that a first record names; raises UserError where it is no MACCO TSV's."""
    cells = [] if record is None else record.cells
    header = [cells[0].removeprefix("\ufeff"), *cells[1:]] if cells else []
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise UserError(f"{path} has {header.count(twice[0])} columns {twice[0]!r}: call them differently")
    if missing := [name for name in sorted(COLUMNS[:7]) if name not in header]:
        raise UserError(f"{path} is no MACCO TSV: it has no column {missing[0]!r}")
    return header


def parse(line: int, data: bytes, header: Sequence[str]) -> tuple[dict[str, Any] | None, str | None]:
    """What a record says, lists read as literals (never evaluated); or, where it cannot be read, why."""
    csv.field_size_limit(LONGEST)
    try:
        row = dict(zip(header, _cells(data.decode()), strict=False))
        literals = {name: read(row.get(name) or "[]") for name, read in READERS.items()}
        return {name: row.get(name) or "" for name in COLUMNS[:2]} | literals, None
    except (ValueError, csv.Error) as error:
        return None, f"line {line}: {error}"


def read_tsv(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
    """Yield (line, row, problem) of each row of a MACCO TSV, in order."""
    found = records(path)
    header = header_of(next(found, None), path)
    for line, data, _ in found:
        if data.strip(b"\r\n"):
            yield line, *parse(line, data, header)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the rows of a TSV lie. Those of image i are order[starts[i]:starts[i + 1]], images by first appearance."""

    path: Path
    header: tuple[str, ...]
    line: NDArray[np.int64]
    offset: NDArray[np.int64]  # bytes
    size: NDArray[np.int64]
    digests: NDArray[np.uint8]  # [rows, 16]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    negatives: bool  # some row has a list of hard negatives that is not empty

    def rows(self, first: int, last: int) -> NDArray[np.int64]:
        """The rows of the images [first, last)."""
        return self.order[self.starts[first] : self.starts[last]]

    def content(self, first: int, last: int) -> dict[str, Any]:
        """What the rows of the images [first, last) are known by, for JSON."""
        rows = self.rows(first, last)
        content = content_of(self.header)
        content.update(self.digests[rows].tobytes())
        return {"images": last - first, "rows": len(rows), "digest": content.hexdigest()}


def content_of(header: Sequence[str]) -> blake2b:
    """What rows are known by, once it has been updated with the `digest` of each."""
    return blake2b(repr(tuple(header)).encode("utf-8", "backslashreplace"), digest_size=_DIGEST)


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST).digest()


def layout(path: Path) -> Layout:
    """Read a TSV once and keep where its rows lie. Raises UserError for one that cannot be read or is none.

    Rows with the same `filepath` are captions of one image; one that names none is an image of its own.
    """
    found = records(path)
    first = next(found, None)
    header = header_of(first, path)
    column, wrong = header.index("filepath"), header.index("neg_caption") if "neg_caption" in header else None
    line, offset, size = array("q"), array("q"), array("q")
    digests, names, negatives = bytearray(), bytearray(), False
    at = 0 if first is None else len(first.data)
    for number, data, cells in found:
        if data.strip(b"\r\n"):
            line.append(number)
            offset.append(at)
            size.append(len(data))
            digests += digest(data)
            file = cells[column] if column < len(cells) else ""
            name = file.encode("utf-8", "surrogateescape") or b"\0%d" % number
            names += digest(name)
            negatives = negatives or (
                wrong is not None and wrong < len(cells) and cells[wrong] not in ("", "[]")
            )
        at += len(data)
    column_of = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_DIGEST), len(line), [None, pa.py_buffer(bytes(names))]
    )
    images = index(pa.table({"name": column_of}), (), "name", "name")
    return Layout(
        path=path,
        header=tuple(header),
        line=np.array(line, np.int64),
        offset=np.array(offset, np.int64),
        size=np.array(size, np.int64),
        digests=np.frombuffer(bytes(digests), np.uint8).reshape(-1, _DIGEST),
        order=images.order,
        starts=images.starts,
        negatives=negatives,
    )
