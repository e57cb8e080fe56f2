"""What a store holds at one moment: its committed shards, the files that hold them, and what is not whole.

A shard is committed by its record, `shards/NAME.json`, or by its row in a pack: `packs/PACK.parquet` holds the records
of many shards whose rows lie together in `samples/PACK.parquet` and so on. A record outweighs a pack: a shard of a pack
that is done again gets one.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.records import GONE, Record, is_record, read_json
from macco.pipeline.schema import TABLES

PACKS: Final = "packs"
NO_ROW: Final = "_schema"  # the stem of the files that give an empty store's globs a schema

# One row per committed shard. `record` is its JSON as it was written.
INDEX: Final = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),  # stem of the Parquet files that hold its rows
        pa.field("samples", pa.int64()),
        pa.field("concepts", pa.int64()),
        pa.field("boxes", pa.int64()),
        pa.field("dataset", pa.string()),
        pa.field("statuses", pa.map_(pa.string(), pa.int64())),
        pa.field("seconds", pa.map_(pa.string(), pa.float64())),
        pa.field("versions", pa.map_(pa.string(), pa.string())),
        pa.field("input", pa.string()),  # JSON
        pa.field("max_side", pa.int32()),
        pa.field("record", pa.string(), nullable=False),
    ]
)
CORE: Final = ("shard", "file", *TABLES)  # what is held of every shard


def row_of(name: str, record: Mapping[str, Any]) -> Record:
    """A shard's record as a row of INDEX."""
    row = {column: record.get(column) for column in INDEX.names}
    for column in ("statuses", "seconds", "versions"):
        row[column] = None if record.get(column) is None else list(record[column].items())
    return row | {
        "shard": name,
        "file": file_of(name, record),
        "input": json.dumps(record.get("input"), separators=(",", ":")),
        "record": json.dumps(record),
    }


def file_of(name: str, record: Mapping[str, Any]) -> str:
    """The stem of the files that hold a shard's rows."""
    return str(record.get("file", name))


def alone(shard: str, file: str) -> bool:
    """Tell whether files of this stem were written for a shard alone."""
    return file == shard or re.fullmatch(re.escape(shard) + "~[0-9a-f]{8}", file) is not None


def parts_of(files: Mapping[str, str], shards: Iterable[str]) -> dict[str, list[str] | None]:
    """The files of some shards, given that of each, and which of its shards these are; None: all that it holds."""
    found: dict[str, list[str] | None] = {}
    for shard in sorted({*shards}):
        file = files[shard]
        found[file] = None if alone(shard, file) else [*(found.get(file) or ()), shard]
    return found


@dataclass(frozen=True)
class Commits:
    """A store's shards as they are now, in order of their names: those whose files are as they were written."""

    core: pa.Table  # [shards] of CORE
    latest: int  # number of a pack
    records: dict[str, Record]  # of the shards that have a record of their own
    packs: tuple[str, ...]
    broken: frozenset[str]  # those that are not whole
    partly: frozenset[str]  # files with rows of shards that are not committed, or lie elsewhere by now
    damaged: dict[str, str]  # shard -> what of it is not whole
    foreign: tuple[str, ...]  # files in the tables' folders that belong to no shard

    @property
    def shards(self) -> list[str]:
        names: list[str] = self.core["shard"].to_pylist()
        return names

    @property
    def files(self) -> dict[str, str]:
        """The file of each shard."""
        return dict(zip(self.shards, self.core["file"].to_pylist(), strict=True))

    def loose(self) -> pa.Table:
        """The rows of INDEX of the whole shards that have a record of their own."""
        there = self.records.keys() - self.damaged.keys()
        rows = [
            row_of(name, self.records[name]) for name in sorted(there) if not self.records[name].get(GONE)
        ]
        return pa.Table.from_pylist(rows, schema=INDEX)

    def parts(self, files: Collection[str]) -> dict[str, list[str] | None]:
        """Some files, each with the shards that are to be read of it; None where that is all it holds."""
        parts: dict[str, list[str] | None] = dict.fromkeys(files)
        for file in self.partly & parts.keys():
            chosen = self.core.filter(pc.equal(self.core["file"], file))
            parts[file] = chosen["shard"].to_pylist()
        return parts


class Packs:
    """Reads the packs of a store; a pack never changes, so each is read once."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._read: dict[str, pa.Table] = {}
        self._records: tuple[str, dict[str, str]] = ("", {})

    def all(self) -> dict[str, pa.Table]:
        """CORE of every pack that is there now, by name; each with the sizes of its files as metadata."""
        names = sorted(self._folder.names(".parquet", PACKS) - {NO_ROW})
        self._read = {
            name: self._read[name] if name in self._read else self._open(name, CORE) for name in names
        }
        return self._read

    def record(self, shard: str) -> Record | None:
        """The record of a shard that a pack holds."""
        for again in (False, True):
            for name, table in (self.all() if again or not self._read else self._read).items():
                # Packs are in order of shards, and mostly apart from each other.
                if not table.num_rows or not table["shard"][0].as_py() <= shard <= table["shard"][-1].as_py():
                    continue
                if self._records[0] != name:
                    try:
                        rows = self._open(name, ("shard", "record"))
                    except FileNotFoundError:  # merged with others meanwhile
                        continue
                    self._records = (
                        name,
                        dict(zip(*(column.to_pylist() for column in rows.columns), strict=True)),
                    )
                if shard in self._records[1]:
                    return self._record(name, self._records[1][shard])
        return None

    def records(self) -> dict[str, Record]:
        """The records of all shards in packs, by name."""
        found: dict[str, Record] = {}
        for name in self.all():
            rows = self._open(name, ("shard", "record"))
            for shard, record in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                found[shard] = self._record(name, record)
        return found

    def _record(self, name: str, text: str) -> Record:
        try:
            record = read_json(text.encode())
        except ValueError as error:
            raise self._damaged(name, error) from error
        if not is_record(record):
            raise self._damaged(name, f"no shard's record: {text[:40]}")
        return dict(record) | {"file": name}

    def _damaged(self, name: str, why: object) -> UserError:
        return UserError(
            f"{self._folder.url}/{PACKS}/{name}.parquet is damaged ({why}): restore it from a copy"
        )

    def _open(self, name: str, columns: Iterable[str]) -> pa.Table:
        data = self._folder.read(f"{PACKS}/{name}.parquet")
        try:
            table = pq.read_table(pa.BufferReader(data), columns=list(columns))
            table = table.cast(pa.schema([INDEX.field(column) for column in columns], table.schema.metadata))
            number_of(table), sizes_of(table)
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise self._damaged(name, error) from error
        if "file" in table.column_names:  # a pack that was copied by hand has another name
            names = pa.array([name] * table.num_rows, pa.string())
            table = table.set_column(table.column_names.index("file"), INDEX.field("file"), names)
        return table


def read_commits(folder: Folder, packs: Packs, records: dict[str, Record], *, compacted: bool) -> Commits:
    """Put a store's records and packs together, and hold the sizes of its files against them.

    records: of the shards that have one of their own. compacted: files may hold more shards than have records, as
    macco 0.1 wrote them.
    """
    tables = packs.all()  # after the records: what is merged in between is seen twice, not missed
    sizes = {table: folder.sizes(table, ".parquet") for table in TABLES}
    damaged: dict[str, str] = {}
    used = {NO_ROW}
    unsized: list[tuple[str, Record]] = []
    for name, record in records.items():
        if record.get(GONE):
            continue
        file = file_of(name, record)
        used.add(file)
        if problem := _problem(file, record.get("bytes"), sizes):
            damaged[name] = problem
        elif "bytes" not in record and not compacted:
            unsized.append((name, record))
    damaged |= _miscounted(folder, unsized)
    rows = [
        {"shard": name, "file": file_of(name, record)} | {table: record.get(table) for table in TABLES}
        for name, record in records.items()
        if not record.get(GONE) and name not in damaged
    ]
    core = pa.schema([INDEX.field(name) for name in CORE])
    parts, own, partly = [pa.Table.from_pylist(rows, schema=core)], pa.array(records, pa.string()), set[str]()
    seen, broken = set[str](), set[str]()
    # The same shard in two packs: a merge was killed, or the older one was not whole when it was done again.
    for name, table in sorted(tables.items(), key=lambda one: -number_of(one[1])):
        used.add(name)
        kept = table.filter(pc.invert(pc.is_in(table["shard"], own))) if len(own) else table
        shards = kept["shard"].to_pylist()
        if not seen.isdisjoint(shards):
            kept = kept.filter(pa.array([shard not in seen for shard in shards]))
            shards = kept["shard"].to_pylist()
        seen.update(shards)
        if kept.num_rows < table.num_rows:
            partly.add(name)
        if problem := _problem(name, sizes_of(table), sizes):
            damaged |= dict.fromkeys(shards, problem)
            broken |= {name} if shards else set()
        else:
            parts.append(kept.select(CORE).cast(core))
    whole = pa.concat_tables(parts).sort_by("shard").combine_chunks()
    if compacted:
        partly |= {*whole["file"].to_pylist()}
    foreign = [f"{table}/{file}.parquet" for table in TABLES for file in sorted(sizes[table].keys() - used)]
    latest = max(map(number_of, tables.values()), default=0)
    return Commits(
        whole, latest, records, tuple(tables), frozenset(broken), frozenset(partly), damaged, tuple(foreign)
    )


def number_of(pack: pa.Table) -> int:
    """The number of a pack: of two, the later one has the higher."""
    return int(pack.schema.metadata[b"number"])


def sizes_of(pack: pa.Table) -> dict[str, int]:
    """The bytes of a pack's files."""
    sizes = json.loads(pack.schema.metadata[b"bytes"])
    return {table: int(sizes[table]) for table in TABLES}


def _problem(
    file: str, expected: Mapping[str, int] | None, sizes: Mapping[str, Mapping[str, int]]
) -> str | None:
    """What is wrong with a shard's files, by what a listing says of them."""
    for table in TABLES:
        size = sizes[table].get(file)
        if size is None:
            return f"{table}/{file}.parquet is missing"
        if expected is not None and size != expected[table]:
            return f"{table}/{file}.parquet has {size:,} bytes, not the {expected[table]:,} that were written"
    return None


def _miscounted(folder: Folder, records: list[tuple[str, Record]]) -> dict[str, str]:
    """What is wrong with shards whose records, of a former version, know no sizes: their files are counted."""

    def problem(one: tuple[str, Record]) -> str | None:
        name, record = one
        for table in TABLES:
            path = f"{table}/{file_of(name, record)}.parquet"
            try:
                rows = pq.read_metadata(folder.path(path), filesystem=folder.fs).num_rows
            except (pa.ArrowException, OSError) as error:
                return f"{path} cannot be read ({str(error).splitlines()[0]})"
            if rows != record.setdefault(table, rows):
                return f"{path} has {rows:,} rows, not the {record[table]:,} that were written"
        return None

    with ThreadPoolExecutor(16) as threads:
        found = zip(records, threads.map(problem, records), strict=True)
        return {name: wrong for (name, _), wrong in found if wrong}
