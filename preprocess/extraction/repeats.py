"""Samples that would enter a store twice, under another name: by the first one of a file, by the rows of tables."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.urls import stamps
from macco.preprocess.sources import Shard, tables
from macco.preprocess.sources.content import first_in

_ROWS: Final = 100_000  # of a table, handed to DuckDB together
_HELD: Final = pa.schema({"shard": pa.string(), "url": pa.string()})
_TWICE: Final = """
    SELECT file, other, source, caption FROM (
        SELECT file, url AS other, source, caption
        FROM coming JOIN samples USING (source, caption) JOIN held USING (shard)
        UNION ALL
        SELECT max(file), min(file), source, caption FROM coming GROUP BY source, caption
    ) WHERE file <> other ORDER BY ALL LIMIT 1"""


def firsts(files: Sequence[Shard], alone: bool) -> dict[str, str]:
    """The first sample of each file, given by its first shard, where it has one: `first_of` by URL.

    `alone`: there is nothing to compare them with but each other, so that a tar whose size no other has is not
    opened. Raises UserError for two files that begin alike.
    """
    if alone:
        found = stamps(shard.url for shard in files) if len(files) > 1 else {}
        sizes = Counter(stamp["size"] for stamp in found.values() if stamp is not None)
        files = [
            shard
            for shard in files
            if (stamp := found.get(shard.url)) is not None
            and (sizes[stamp["size"]] > 1 or shard.format != "webdataset")
        ]
    by_url, by_first = dict[str, str](), dict[str, str]()
    with ThreadPoolExecutor(16) as threads:
        for shard, first in zip(files, threads.map(_first, files), strict=True):
            if first is None:
                continue
            if first in by_first:
                raise UserError(
                    f"{shard.url} begins with the same sample as {by_first[first]}: give one of them, "
                    "or extract them into two stores"
                )
            by_url[shard.url], by_first[first] = first, shard.url
    return by_url


def refuse_overlaps(store: Store, todo: Sequence[Shard], held: Sequence[tuple[str, str]]) -> None:
    """Raise UserError for a table with a row, an image file and a caption, that another table has.

    held: the shards of tables in the store, with their URLs.
    """
    todo = [shard for shard in todo if _names_files(shard)]
    if not todo or len({*(shard.url for shard in todo), *(url for _, url in held)}) < 2:
        return
    database = connect(store, views=("samples",))
    database.execute("CREATE TEMP TABLE coming (file VARCHAR, source VARCHAR, caption VARCHAR)")
    rows = ((shard.url, *row) for shard in todo for row in _paths(shard))
    while batch := list(islice(rows, _ROWS)):
        columns = zip(("file", "source", "caption"), zip(*batch, strict=True), strict=True)
        database.register("batch", pa.table(dict(columns))).execute("INSERT INTO coming SELECT * FROM batch")
    database.register("held", pa.Table.from_pylist([{"shard": s, "url": u} for s, u in held], schema=_HELD))
    for file, other, source, caption in database.execute(_TWICE).fetchall():
        raise UserError(
            f"{file} has a row that {other} has already ({source}, {caption!r}): "
            "take such rows out, or use another --out"
        )


def _first(shard: Shard) -> str | None:
    try:
        return first_in(shard)
    except OSError:
        return None  # its extraction will say so


def _names_files(shard: Shard) -> bool:
    return shard.format != "webdataset" and not (
        shard.format == "parquet" and tables.holds_images(shard.table())
    )


def _paths(shard: Shard) -> Iterator[tuple[str, str]]:
    for image in shard.glance():
        for caption in image.captions:
            if isinstance(caption, str) and image.source != shard.url:
                yield image.source, caption
