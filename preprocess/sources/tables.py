"""Tables that name images or hold them: TSV, CSV, Parquet, and COCO's captions JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.schema import Status
from macco.pipeline.urls import folder, join, open_url, stamps
from macco.preprocess.graph.refusal import CaptionError, captions_of
from macco.preprocess.sources.source_image import MAX_BYTES, SourceImage

# Looked for in this order where no field is named: open_clip's names first.
IMAGE_FIELDS: Final = ("filepath", "image", "jpg", "image_path", "path", "file_name")
CAPTION_FIELDS: Final = ("title", "caption", "captions", "text")

_BATCH = 64  # images of a Parquet file in memory at a time


@dataclass(frozen=True)
class Table:
    """A table and how to read it; None and () stand for the usual fields."""

    url: str
    format: str  # table | parquet | coco
    captions: tuple[str, ...]
    image: str | None
    key: str | None
    image_root: str | None


@dataclass(frozen=True, slots=True)
class _Index:
    """All of a table but its image bytes: rows order[starts[i]:starts[i + 1]] are image i, first to last."""

    table: pa.Table
    captions: tuple[str, ...]
    image: str
    key: str | None  # the column whose equal values make one image; None: each row is one
    embedded: bool  # the image column holds bytes, and is not in `table`
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    broken: list[tuple[int, str]]  # line number and problem of rows that do not fit the header


def count(source: Table) -> int:
    """Return the number of Items of a table."""
    index = _index(source)
    return len(index.starts) - 1 + len(index.broken)


def holds_images(source: Table) -> bool:
    """Tell a table that holds images from one that names their files."""
    return _index(source).embedded


def read(source: Table, start: int, stop: int | None, *, follow: bool = True) -> Iterator[SourceImage]:
    """Yield the images [start, stop) of a table, in the order in which they first appear.

    Rows of one image need not be neighbours. Rows that do not fit the header come last, as "bad_row". Image
    files are opened only to `follow` the paths to them.
    """
    index = _index(source)
    images = len(index.starts) - 1
    first, last = min(start, images), images if stop is None else min(stop, images)
    rows = index.order[index.starts[first] : index.starts[last]]
    table = index.table.take(pa.array(rows))
    captions = [table[name].to_pylist() for name in index.captions]
    names = None if index.key is None else table[index.key].to_pylist()
    heads, ends = (index.starts[first + one : last + one] - index.starts[first] for one in (0, 1))
    if index.embedded:
        pictures = _embedded(source.url, index.image, rows[heads])
    else:
        paths = table[index.image].to_pylist()
        pictures = (paths[head] for head in heads)
    root = source.image_root or folder(source.url)
    for head, end, picture in zip(heads, ends, pictures, strict=True):
        texts: list[str | CaptionError] = []
        for row in range(head, end):
            for column in captions:
                texts += captions_of(column[row])
        number = str(rows[head])
        key = number.zfill(9) if names is None else _text(names[head]) or f"row-{number}"
        yield _item(key, tuple(texts), picture, f"{index.image}/{number}", source.url, root, follow)
    end = images + len(index.broken) if stop is None else stop
    for line, problem in index.broken[max(0, start - images) : max(0, end - images)]:
        yield SourceImage(f"line-{line}", (), None, source.url, status=Status.BAD_ROW, error=problem)


def _item(
    key: str,
    captions: tuple[str | CaptionError, ...],
    picture: Any,
    cell: str,
    url: str,
    root: str,
    follow: bool,
) -> SourceImage:
    """Make an SourceImage of bytes (in `cell`, "column/row"), of Hugging Face's {bytes, path}, or of a path."""
    if isinstance(picture, dict):
        picture = picture.get("bytes") or picture.get("path")
    if isinstance(picture, bytes) and len(picture) > MAX_BYTES:
        words = f"{len(picture)} bytes; the limit is {MAX_BYTES}"
        return SourceImage(key, captions, None, url, cell, None, len(picture), Status.MEMBER_TOO_LARGE, words)
    if isinstance(picture, bytes) and picture:
        return SourceImage(key, captions, picture, url, cell, None, len(picture))
    if not picture:
        return SourceImage(
            key, captions, None, url, cell, status=Status.MISSING_IMAGE, error="the image field is empty"
        )
    source = join(root, picture)
    if not follow:
        return SourceImage(key, captions, None, source, picture)
    try:
        with open_url(source) as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        words = f"no file {source}"
        return SourceImage(key, captions, None, source, picture, status=Status.MISSING_IMAGE, error=words)
    except (OSError, ValueError) as error:  # a folder, no permission, a name that cannot be one
        return SourceImage(
            key, captions, None, source, picture, status=Status.UNREADABLE_IMAGE, error=str(error)
        )
    if len(data) > MAX_BYTES:
        words = f"more than {MAX_BYTES} bytes"
        return SourceImage(key, captions, None, source, picture, status=Status.MEMBER_TOO_LARGE, error=words)
    return SourceImage(key, captions, data, source, picture, None, len(data))


def _text(value: Any) -> str:
    return (
        value.decode("utf-8", "backslashreplace")
        if isinstance(value, bytes)
        else ""
        if value is None
        else str(value)
    )


def _index(source: Table) -> _Index:
    return _loaded(source, repr(stamps([source.url])))


@lru_cache(maxsize=1)
def _loaded(source: Table, stamp: str) -> _Index:  # the stamp: a file that was changed is read again
    load = {"table": _delimited, "parquet": _parquet, "coco": _coco}[source.format]
    try:
        return load(source)
    except (
        pa.ArrowInvalid,
        pa.ArrowNotImplementedError,
        UnicodeDecodeError,
        json.JSONDecodeError,
        csv.Error,
    ) as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"cannot read {source.url} as {source.format}: {problem}") from error


def _delimited(source: Table) -> _Index:
    delimiter = "," if source.url.lower().endswith(".csv") else "\t"
    with open_url(source.url) as stream:
        header = next(
            csv.reader(io.TextIOWrapper(stream, "utf-8-sig", "backslashreplace"), delimiter=delimiter), []
        )
    image, captions, key = _fields(source, header)
    columns = list(dict.fromkeys([image, *captions, *([key] if key else [])]))
    broken: list[tuple[int, str]] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        words = f"{row.actual_columns} fields where the header has {row.expected_columns}"
        broken.append((row.number, words))
        return "skip"

    with open_url(source.url) as stream:
        table = pyarrow.csv.read_csv(
            stream,
            pyarrow.csv.ReadOptions(use_threads=False, block_size=2**24),  # one thread: it knows line numbers
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
            pyarrow.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(
                    columns, pa.binary()
                ),  # checked one by one: one bad byte is one bad row
            ),
        )
    paths = pa.chunked_array(
        [pa.array([_text(path) for path in chunk.to_pylist()], pa.string()) for chunk in table[image].chunks],
        pa.string(),
    )
    table = table.set_column(columns.index(image), image, paths)
    return _grouped(table, captions, image, key or image, embedded=False, broken=broken)


def _parquet(source: Table) -> _Index:
    with open_url(source.url) as stream:
        schema = pq.read_schema(stream)
        image, captions, key = _fields(source, schema.names)
        kind = schema.field(image).type
        embedded = pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        columns = dict.fromkeys([*captions, *([] if embedded else [image]), *([key] if key else [])])
        stream.seek(0)
        table = pq.read_table(stream, columns=list(columns))
    if not embedded:
        table = table.set_column(table.column_names.index(image), image, table[image].cast(pa.string()))
    return _grouped(
        table, captions, image, key or (None if embedded else image), embedded=embedded, broken=[]
    )


def _coco(source: Table) -> _Index:
    with open_url(source.url) as stream:
        document = json.load(stream)
    try:
        texts: dict[Any, list[Any]] = {image["id"]: [] for image in document["images"]}
        names = {image["id"]: image["file_name"] for image in document["images"]}
        for one in sorted(document["annotations"], key=lambda one: one["id"]):
            texts.setdefault(one["image_id"], []).append(one["caption"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{source.url} is no COCO captions file: {error!r} (images and annotations)"
        ) from error
    rows = [
        (str(image), names.get(image, ""), text) for image, found in texts.items() for text in found or [None]
    ]
    columns = {
        "id": pa.array([row[0] for row in rows], pa.string()),
        "file_name": pa.array([row[1] for row in rows], pa.string()),
        "caption": pa.array(
            [None if row[2] is None else str(row[2]).encode("utf-8", "surrogatepass") for row in rows]
        ),
    }
    return _grouped(pa.table(columns), ("caption",), "file_name", "id", embedded=False, broken=[])


def _fields(source: Table, columns: Sequence[str]) -> tuple[str, tuple[str, ...], str | None]:
    def usual(names: Sequence[str], option: str) -> str:
        for name in names:
            if name in columns:
                return name
        raise UserError(
            f"{source.url} has no column {' or '.join(names)}; name one with {option}: {', '.join(columns)}"
        )

    for name in [source.image, source.key, *source.captions]:
        if name is not None and name not in columns:
            raise UserError(f"{source.url} has no column {name!r}; it has {', '.join(columns)}")
    image = source.image or usual(IMAGE_FIELDS, "--image-field")
    return image, source.captions or (usual(CAPTION_FIELDS, "--caption-field"),), source.key


def _grouped(
    table: pa.Table,
    captions: tuple[str, ...],
    image: str,
    key: str | None,
    *,
    embedded: bool,
    broken: list[tuple[int, str]],
) -> _Index:
    if key is None:
        order = np.arange(table.num_rows)
        starts = np.arange(table.num_rows + 1)
    else:  # dictionary codes count up in order of first appearance
        chunks = table[key].dictionary_encode(null_encoding="encode").chunks
        codes = np.concatenate([np.empty(0, np.int64), *(chunk.indices.to_numpy() for chunk in chunks)])
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(codes.max(initial=-1) + 2))
    return _Index(table, captions, image, key, embedded, order, starts, broken)


def _embedded(url: str, image: str, rows: npt.NDArray[np.int64]) -> Iterator[Any]:
    """Yield the image column's values at `rows`, which count up, a few in memory at a time."""
    with open_url(url) as stream:
        parquet = pq.ParquetFile(stream, buffer_size=2**20)
        begin = 0
        for group in range(parquet.num_row_groups):
            end = begin + parquet.metadata.row_group(group).num_rows
            left = rows[(rows >= begin) & (rows < end)]
            if len(left):
                for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=[image]):
                    inside = left[left < begin + len(batch)]
                    for row in inside:
                        yield batch.column(0)[int(row - begin)].as_py()
                    left = left[len(inside) :]
                    begin += len(batch)
                    if not len(left):
                        break
            begin = end
