"""TSV and CSV. In a TSV a quote is a character like any other; in a CSV it holds fields together.

No line is ever lost in another: a line of a CSV whose quotes do not come out is read as it stands. Rows that do not
have as many fields as the header are named, by number, and passed over.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

import pyarrow as pa
import pyarrow.csv

from macco.pipeline.content import open_plain
from macco.pipeline.errors import UserError
from macco.preprocess.sources.index import Index, Table, choose_fields, index, text_of_cell
from macco.preprocess.sources.source_image import IMAGE, MAX_BYTES

SEPARATORS: Final = ("\t", ",", ";", "|")
MAX_HEADER: Final = 2**20  # bytes in which the first line ends

_CSV = re.compile(r"\.csv(\.\w+)?$", re.IGNORECASE)
_ROWS = 2**16  # put into Arrow at a time
_IMAGE_NAME = re.compile(rf"\.({'|'.join(IMAGE)})[\s\"]*$", re.IGNORECASE)


def load(source: Table) -> Index:
    """Read a table whose first line names its columns; tabs, commas, semicolons or bars stand between them."""
    with open_plain(source.url) as stream:
        data = stream.read()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{source.url} has no column that can be read: it is UTF-16; save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    csv.field_size_limit(MAX_BYTES)
    separator, quoted, header = _dialect(source, data)
    image, captions, key = choose_fields(source, header)
    columns = list(dict.fromkeys([image, *captions, *([key] if key else [])]))
    broken: list[tuple[int, str]] = []
    table = _quickly(data, separator, columns) if not quoted or b'"' not in data else None
    if table is None:
        table, broken = _exactly(data, separator, quoted, header, columns, image)
    paths = pa.chunked_array(
        [
            pa.array([text_of_cell(path) for path in chunk.to_pylist()], pa.string())
            for chunk in table[image].chunks
        ],
        pa.string(),
    )
    table = table.set_column(columns.index(image), image, paths)
    return index(table, captions, image, key or image, broken=broken)


def _dialect(source: Table, data: bytes) -> tuple[str, bool, list[str]]:
    """The separator, whether quotes hold fields together, and the header: the first that has the columns wanted."""
    usual = "," if _CSV.search(source.url) else "\t"
    found = []
    for separator in (usual, *(other for other in SEPARATORS if other != usual)):
        # Whoever puts the columns' names in quotes puts them around the fields, too.
        quoted = separator != "\t" or source.format == "csv" or data.startswith(b'"')
        header = next(_records(_lines(data[:MAX_HEADER]), separator, quoted), [])
        found.append((separator, quoted, header))
        try:
            choose_fields(source, header)
        except UserError:
            continue
        return found[-1]
    return max(found, key=lambda one: len(one[2]))  # its header tells most


def _quickly(data: bytes, separator: str, columns: list[str]) -> pa.Table | None:
    """Read a table without quoting; None where Arrow cannot, or would lose a row that does not fit the header."""
    if data.count(b"\r") != data.count(b"\r\n"):
        return None
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=2**24),
            pyarrow.csv.ParseOptions(delimiter=separator, quote_char=False, double_quote=False),
            pyarrow.csv.ConvertOptions(
                include_columns=columns,
                # Checked one by one: one bad byte is one bad row.
                column_types=dict.fromkeys(columns, pa.binary()),
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError):
        return None


def _exactly(
    data: bytes, separator: str, quoted: bool, header: list[str], columns: list[str], image: str
) -> tuple[pa.Table, list[tuple[int, str]]]:
    places = [header.index(name) for name in columns]
    broken: list[tuple[int, str]] = []
    parts = []
    records = _records(_lines(data), separator, quoted, len(header), header.index(image))
    next(records, None)
    numbered = enumerate(records, 2)
    while rows := list(islice(numbered, _ROWS)):
        broken += [(n, _misfit(len(row), len(header))) for n, row in rows if len(row) != len(header)]
        good = [row for _, row in rows if len(row) == len(header)]
        cells = [pa.array([_bytes(row[place]) for row in good], pa.binary()) for place in places]
        parts.append(pa.table(cells, names=columns))
    schema = pa.schema([(name, pa.binary()) for name in columns])
    return pa.concat_tables([schema.empty_table(), *parts]), broken


def _lines(data: bytes) -> list[str]:
    """Lines with their ends. Bytes that are not UTF-8 stay what they are, as surrogates."""
    text = data.decode("utf-8", "surrogateescape")
    end = "\n" if "\n" in text else "\r"  # the old Mac's
    lines = [line + "\n" for line in text.split(end)]
    return lines if lines[-1] != "\n" else lines[:-1]


def _bytes(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape")


def _records(
    lines: list[str], separator: str, quoted: bool, width: int | None = None, image: int = 0
) -> Iterator[list[str]]:
    """Split lines into fields; empty lines are none. `width` and `image` are of the header, where it is known."""
    if not quoted:
        yield from (line.rstrip("\r\n").split(separator) for line in lines if line.strip("\r\n"))
        return
    at = 0
    while at < len(lines):
        begin = at
        reader = csv.reader((lines[n] for n in range(begin, len(lines))), delimiter=separator, strict=True)
        with suppress(csv.Error):  # something after a closing quote, or no such quote to the end
            for row in reader:
                end = begin + reader.line_num
                if end > at + 1 and (
                    width not in (None, len(row)) or _swallows(lines[at:end], row, separator, width, image)
                ):
                    break
                if row:
                    yield row
                at = end
        if at < len(lines):  # it is read as it stands
            yield lines[at].rstrip("\r\n").split(separator)
            at += 1


def _swallows(lines: list[str], row: list[str], separator: str, width: int | None, image: int) -> bool:
    """Tell lines that an open quote would make one row of from those of a text: they would name images of their own."""
    if width is None:
        return False
    rows = [line for line in lines if _is_row(line, separator, width, image)]
    name = row[image].replace('"', "")
    return len(rows) > 1 or any(name not in line.replace('"', "") for line in rows)


def _is_row(line: str, separator: str, width: int, image: int) -> bool:
    """Whether a line by itself would name an image; where that is the last field, others may have separators inside."""
    fields = line.split(separator)
    place = -1 if image == width - 1 else image
    return len(fields) >= width and _IMAGE_NAME.search(fields[place]) is not None


def _misfit(fields: int, expected: int) -> str:
    return f"{fields} fields where the header has {expected}"
