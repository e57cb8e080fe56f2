"""Many small files into few large ones, row for row: in the store itself, or in a new one.

A pack's record is written after its tables, and before what it was made from goes: a kill in between leaves rows twice
on the disk, and once in sight.
"""

import heapq
import json
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from macco.pipeline.commits import INDEX, PACKS, Commits, alone, row_of
from macco.pipeline.errors import UserError
from macco.pipeline.groundings import GROUNDINGS
from macco.pipeline.parquet import parquet_bytes, parquet_options
from macco.pipeline.records import GONE
from macco.pipeline.schema import TABLES, TEXTS
from macco.pipeline.store import Store

LOOSE: Final = 500  # shards with files of their own, from which on a run puts them together
LIMIT: Final = 256 * 2**20  # bytes of a pack: of its largest table
GROUP: Final = 65_536  # rows of a row group, the least that is read for one shard

_Bounds = tuple[str, str]  # the first and the last shard of a pack


@dataclass(frozen=True)
class _Source:
    """Files that hold some shards: those of one shard, or of many."""

    file: str
    shards: tuple[str, ...]  # in order
    bytes: int  # of the largest table


def merge(store: Store, *, everything: bool = False) -> int:
    """Put a store's small files together if there are many (`everything`: if there are two); returns the packs made.

    A pack takes in those that are no larger than what comes with it, so that a row is written anew a few times at most,
    however long the run. The caller is the store's one writer. Raises OSError where nothing can be written.
    """
    commits = store.commits()
    sources = _sources(store, commits)
    group = [source for source in sources if source.file not in commits.packs]
    if not everything and len(group) < LOOSE:
        return 0
    total = sum(source.bytes for source in group)
    for source in sorted((one for one in sources if one.file in commits.packs), key=lambda one: one.bytes):
        small = source.shards and source.bytes < LIMIT // 2 and (everything or source.bytes <= total)
        if small or source.file in commits.partly - commits.broken:
            group.append(source)
            total += source.bytes
    # What no pack holds any more; one that is not whole stays until all its shards are done again.
    gone = [name for name, record in commits.records.items() if record.get(GONE) and not commits.broken]
    if len(group) < 2 and not commits.partly and not gone:
        return 0
    made = _write(store, commits, group, store)
    store.check_writer()  # what another has done since outweighs the new pack, and is not to go
    for source in group:  # a pack before the records that outweigh it
        if source.file in commits.packs:
            store.remove(f"{PACKS}/{source.file}.parquet")
    for name in gone:
        store.remove(f"shards/{name}.json")
    for source in group:
        if source.file not in commits.packs:
            for shard in source.shards:
                store.check_writer()
                store.remove(f"shards/{shard}.json")
        for table in TABLES:
            store.remove(f"{table}/{source.file}.parquet")
    return made


def put_together(store: Store, *, everything: bool = False) -> int:
    """`merge`, with one line for a disk that is full. Raises UserError."""
    try:
        return merge(store, everything=everything)
    except OSError as error:
        raise UserError(f"cannot write to {store.url}: {error}; what is committed is safe") from error


def copy(store: Store, out: Store) -> int:
    """Put the rows of a store into a new one; returns the packs made. Raises OSError where nothing can be written."""
    commits = store.commits()
    made = _write(store, commits, _sources(store, commits), out)
    for name in TEXTS:  # which are read by shard
        for shard in sorted(store.names(".parquet", name) & {*commits.shards}):
            out.make(name)
            out.put(f"{name}/{shard}.parquet", store.read(f"{name}/{shard}.parquet"))
    for name, settings in store.groundings().items():
        out.begin_grounding(name, settings)
        for shard in sorted(store.grounded(name) & {*commits.shards}):
            out.put(
                f"{GROUNDINGS}/{name}/{shard}.parquet", store.read(f"{GROUNDINGS}/{name}/{shard}.parquet")
            )
        out.index_boxes(name)
    return made


def _sources(store: Store, commits: Commits) -> list[_Source]:
    sizes = [store.sizes(table, ".parquet") for table in TABLES]
    held: dict[str, list[str]] = {name: [] for name in commits.packs}
    for shard, file in commits.files.items():
        held.setdefault(file, []).append(shard)
    return [
        _Source(file, tuple(shards), max(size.get(file, 0) for size in sizes))
        for file, shards in held.items()
    ]


def _write(store: Store, commits: Commits, sources: Sequence[_Source], out: Store) -> int:
    """Write the shards of some files as packs of at most about LIMIT bytes."""
    size = {shard: source.bytes / len(source.shards) for source in sources for shard in source.shards}
    packs: list[list[str]] = []
    room = 0.0
    for shard in sorted(size):
        if room < size[shard]:
            packs.append([])
            room = LIMIT
        packs[-1].append(shard)
        room -= size[shard]
    for shards in packs:
        bounds = shards[0], shards[-1]
        name = f"{bounds[0][:60]}..{bounds[1][:60]}+{uuid.uuid4().hex[:8]}"
        written = {table: _write_table(store, table, commits, sources, bounds, out, name) for table in TABLES}
        rows = _records(store, commits, sources, bounds, name)
        metadata = {b"bytes": json.dumps(written).encode(), b"number": str(commits.latest + 1).encode()}
        out.check_writer()
        out.put(f"{PACKS}/{name}.parquet", parquet_bytes(INDEX.with_metadata(metadata), rows))
    return len(packs)


def _write_table(
    store: Store,
    table: str,
    commits: Commits,
    sources: Sequence[_Source],
    bounds: _Bounds,
    out: Store,
    name: str,
) -> int:
    """Write one table of a pack; returns its bytes."""
    schema = TABLES[table]
    with out.writing(f"{table}/{name}.parquet") as file:
        with pq.ParquetWriter(file, schema, **parquet_options(schema)) as writer:
            found = [
                (one.shards[0], _rows(store, table, commits, one, bounds)) for one in sources if one.shards
            ]
            for rows in _groups(_merged(found)):
                writer.write_table(rows, row_group_size=GROUP)
        return int(file.tell())


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, in tables of GROUP rows."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        if rows >= GROUP:
            whole = pa.concat_tables(held).combine_chunks()
            end = rows - rows % GROUP
            yield whole.slice(0, end)
            held, rows = [whole.slice(end)], rows - end
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def _merged(sources: Iterable[tuple[str, Iterator[pa.Table]]]) -> Iterator[pa.Table]:
    """The rows of sources, each in order of shards and none with a shard of another, in order of shards.

    Each stands behind a name that none of its shards comes before: it is read from there on, thousands one by one.
    """
    coming = deque(sorted(sources, key=lambda one: one[0]))
    heads: list[tuple[str, int, pa.Table, Iterator[pa.Table]]] = []
    opened = count()

    def push(source: Iterator[pa.Table], table: pa.Table | None) -> None:
        if table is not None:
            heapq.heappush(heads, (table["shard"][0].as_py(), next(opened), table, source))

    while heads or coming:
        while coming and (not heads or coming[0][0] <= heads[0][0]):
            _, source = coming.popleft()
            push(source, next(source, None))
        if not heads:
            break
        _, _, table, source = heapq.heappop(heads)
        others = [queue[0][0] for queue in (heads, coming) if queue]
        if others and table["shard"][-1].as_py() > min(others):
            end = pc.sum(pc.less(table["shard"], min(others))).as_py()
            yield table.slice(0, end)
            push(source, table.slice(end))
        else:
            yield table
            push(source, next(source, None))


def _rows(store: Store, table: str, commits: Commits, source: _Source, bounds: _Bounds) -> Iterator[pa.Table]:
    """A file's rows of the shards within bounds, in order of shards, some at a time."""
    first, last = bounds
    if not source.shards or source.shards[0] > last or source.shards[-1] < first:
        return
    path, single = f"{table}/{source.file}.parquet", alone(source.shards[0], source.file)
    with pa.BufferReader(store.read(path)) if single else store.fs.open(store.path(path), "rb") as stream:
        file = pq.ParquetFile(stream)
        place = file.schema_arrow.get_field_index("shard")
        for number in range(file.num_row_groups):
            known = file.metadata.row_group(number).column(place).statistics
            if known is not None and known.has_min_max and (known.max < first or known.min > last):
                continue
            rows = _cast(file.read_row_group(number, use_threads=not single), TABLES[table])
            if not single:
                there = pc.and_(pc.greater_equal(rows["shard"], first), pc.less_equal(rows["shard"], last))
                if source.file in commits.partly:
                    there = pc.and_(there, pc.is_in(rows["shard"], pa.array(source.shards, pa.string())))
                rows = rows.filter(there)
            if rows.num_rows:
                yield rows


def _cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of a former version lack columns that came later."""
    if rows.schema == schema:
        return rows
    for place, field in enumerate(schema):
        if field.name not in rows.schema.names:
            rows = rows.add_column(place, field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def _records(
    store: Store, commits: Commits, sources: Sequence[_Source], bounds: _Bounds, name: str
) -> pa.Table:
    """The records of a pack's shards, in their order."""
    found = []
    for source in sources:
        shards = [shard for shard in source.shards if bounds[0] <= shard <= bounds[1]]
        if source.file in commits.packs and shards:
            table = pq.read_table(pa.BufferReader(store.read(f"{PACKS}/{source.file}.parquet")), schema=INDEX)
            found.append(table.filter(pc.is_in(table["shard"], pa.array(shards))).replace_schema_metadata())
        else:
            rows = [row_of(shard, commits.records[shard]) for shard in shards]
            found.append(pa.Table.from_pylist(rows, schema=INDEX))
    table = pa.concat_tables(found).sort_by("shard")
    files = pa.array([name] * table.num_rows, pa.string())
    return table.set_column(table.column_names.index("file"), INDEX.field("file"), files)
