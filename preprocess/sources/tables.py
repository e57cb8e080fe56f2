"""Tables that name images or hold them: TSV, CSV, Parquet, and several kinds of JSON."""

import csv
import json
import lzma
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.schema import Status
from macco.pipeline.urls import folder, join, open_url, stamps
from macco.preprocess.graph.refusal import CaptionError, captions_of
from macco.preprocess.sources import delimited, documents, parquet
from macco.preprocess.sources.index import Index, Table, text_of_cell
from macco.preprocess.sources.source_image import MAX_BYTES, SourceImage

LOADERS = {
    "table": delimited.load,
    "csv": delimited.load,
    "parquet": parquet.load,
    "coco": documents.coco,
    "karpathy": documents.karpathy,
    "json": documents.json_list,
    "jsonl": documents.json_lines,
}


def count(source: Table) -> int:
    """Return the number of images of a table, and of rows that belong to none."""
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
    captions = [_values(table[name]) for name in index.captions]
    names = None if index.key is None else list(map(_shown, _values(table[index.key])))
    paths = None if index.embedded else list(map(_shown, _values(table[index.image])))
    heads, ends = (index.starts[first + one : last + one] - index.starts[first] for one in (0, 1))
    if paths is None:
        pictures = parquet.embedded(source.url, index.image, rows[heads])
    else:
        pictures = (paths[head] for head in heads)
    root = source.image_root or folder(source.url)
    for head, end, picture in zip(heads, ends, pictures, strict=True):
        texts: list[str | CaptionError] = []
        for row in range(head, end):
            found = [
                text
                for column in captions
                for text in captions_of(json.loads(column[row]) if index.as_json else column[row])
            ]
            if paths is not None and paths[row] != paths[head]:  # no caption of this image
                words = f"its key is that of {paths[head]!r} already, but it names {paths[row]!r}"
                found = [CaptionError(Status.DUPLICATE_KEY, words)] * len(found)
            texts += found
        number = str(rows[head])
        key = number.zfill(9) if names is None else text_of_cell(names[head]) or f"row-{number}"
        yield item_of(key, tuple(texts), picture, f"{index.image}/{number}", source.url, root, follow=follow)
    end = images + len(index.broken) if stop is None else stop
    for line, problem in index.broken[max(0, start - images) : max(0, end - images)]:
        yield SourceImage(f"line-{line}", (), None, source.url, status=Status.BAD_ROW, error=problem)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values; where a text of it is no UTF-8, which Arrow does not look at, all as bytes."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        lists = pa.types.is_large_list(column.type)
        return list(column.cast(pa.large_list(pa.large_binary()) if lists else pa.large_binary()).to_pylist())


def _shown(value: Any) -> Any:
    """What names something, as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def item_of(
    key: str,
    captions: tuple[str | CaptionError, ...],
    picture: Any,
    cell: str,
    url: str,
    root: str,
    *,
    follow: bool = True,
) -> SourceImage:
    """Make a SourceImage of bytes (in `cell`, "column/row"), of Hugging Face's {bytes, path}, or of a path."""
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


def _index(source: Table) -> Index:
    return _loaded(source, repr(stamps([source.url])))


@lru_cache(maxsize=1)
def _loaded(source: Table, stamp: str) -> Index:  # the stamp: a file that was changed is read again
    try:
        return LOADERS[source.format](source)
    except (
        pa.ArrowException,
        UnicodeDecodeError,
        json.JSONDecodeError,
        RecursionError,
        csv.Error,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        OSError,
    ) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read {source.url} as {source.format}: {problem}") from error
