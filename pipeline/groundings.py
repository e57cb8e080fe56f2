"""Boxes of further detectors, beside a store's own: each set has a name, and a reader has those of one set."""

import contextlib
import json
import shlex
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.records import read_json
from macco.pipeline.schema import BOXES
from macco.pipeline.settings import difference
from macco.pipeline.views import Files, literal, parquet, quote, scan

# STORE/groundings/NAME.json: its settings; STORE/groundings/NAME/<shard>.parquet: rows of BOXES, which with their file
# are there or not, and the record of their making. They go where the shard's rows change. STORE/groundings/NAME/_INDEX
# repeats the sizes and counts of most of these files, so that a question need not open each: of one that it does not
# speak of, or whose size is another, the file itself is asked.
GROUNDINGS: Final = "groundings"
_INDEX: Final = "_shards.json"


@dataclass(frozen=True)
class Grounded:
    """The shards of a further set of boxes."""

    shards: dict[str, dict[str, int]]  # those that are whole: what was counted when they were made
    damaged: dict[str, str]  # the others: what is wrong with their files


class Groundings(Folder):
    """What a store has of them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.boxes_of: str | None = None  # whose boxes are read; None: the store's own
        self._sets: dict[str, dict[str, Any] | str] | None = None  # settings, or why they cannot be read
        self._recorded: list[str] | None = None  # names of all records: a set need not have a shard
        self._looked: dict[tuple[str, str, int], dict[str, int] | str | None] = {}  # by set, shard and bytes
        self._there: set[str] = set()  # shards that these have
        self._held: dict[str, list[str]] = {}  # shards by the stem of their files

    def groundings(self) -> dict[str, dict[str, Any]]:
        """The settings of each further set of boxes that has any, by name."""
        return {name: one for name, one in self._all_sets().items() if not isinstance(one, str)}

    def unreadable(self) -> dict[str, str]:
        """The sets that have shards and no record that says how these were made: what is wrong with it, by name."""
        return {name: one for name, one in self._all_sets().items() if isinstance(one, str)}

    def sets(self) -> list[str]:
        """The names of both."""
        return [*self._all_sets()]

    def _all_sets(self) -> dict[str, dict[str, Any] | str]:
        if self._sets is None:
            self._sets = {name: self._settings(name) for name in self._records() if self._sizes(name)}
        return self._sets

    def _records(self) -> list[str]:
        if self._recorded is None:  # files: a set may be called as one
            self._recorded = sorted(self.sizes(GROUNDINGS, ".json"))
        return self._recorded

    def _settings(self, name: str) -> dict[str, Any] | str:
        place = f"{GROUNDINGS}/{name}.json"
        try:
            found = read_json(self.read(place))
        except ValueError as error:
            return f"{place} is not valid JSON ({error})"
        if not isinstance(found, dict) or not isinstance(found.get("detector"), str):
            return f"{place} does not say which detector they are of"
        return found

    def begin_grounding(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a set, or go on with it. Raises UserError where its shards were made with other settings."""
        known = self.groundings().get(name)
        if known is None:  # what lies there was made nobody knows how
            self._remove(name)
            self.make(f"{GROUNDINGS}/{name}")
            self.put(f"{GROUNDINGS}/{name}.json", json.dumps(dict(settings), indent=1).encode())
            self._forget()
        elif key := difference(known, settings):
            raise UserError(
                f"boxes {name!r} of {self.url} were made with {key} = {known.get(key)!r}, not "
                f"{settings.get(key)!r}: give them another name with --as, or the same settings"
            )
        else:
            self.index_boxes(name)

    def drop_grounding(self, name: str, shards: Collection[str]) -> None:
        """Remove a set's boxes of some shards; of one whose record cannot be read, all."""
        if name in self.unreadable():
            self.remove(f"{GROUNDINGS}/{name}.json")
            self._remove(name)
        for shard in shards:
            self.remove(_place(name, shard))
        self._forget()

    def _remove(self, name: str) -> None:
        for shard in self._sizes(name):
            self.remove(_place(name, shard))
        self.remove(f"{GROUNDINGS}/{name}/{_INDEX}")

    def _forget(self) -> None:
        self._sets = self._recorded = None
        self._looked = {}

    def grounding(self, name: str) -> Grounded:
        """The shards that a set has boxes of, and those whose files are not whole."""
        known, sizes = self._index(name), self._sizes(name)
        unknown = [
            shard for shard, size in sizes.items() if shard not in known or known[shard]["bytes"] != size
        ]
        with ThreadPoolExecutor(16) as threads:  # an object store takes its time for each
            looked = dict(
                zip(unknown, threads.map(lambda one: self._look(name, one, sizes[one]), unknown), strict=True)
            )
        shards = {shard: one for shard, one in looked.items() if isinstance(one, dict)}
        shards |= {shard: known[shard]["counts"] for shard in sizes.keys() - looked.keys()}
        return Grounded(
            dict(sorted(shards.items())),
            {shard: one for shard, one in looked.items() if isinstance(one, str)},
        )

    def grounded(self, name: str) -> set[str]:
        """The shards that a set has boxes of."""
        return {*self.grounding(name).shards}

    def index_boxes(self, name: str) -> None:
        """Write down the sizes and counts of a set's files, where that can be. The caller is the one writer."""
        self._forget()
        found, sizes = self.grounding(name).shards, self._sizes(name)
        index = {
            shard: {"bytes": sizes[shard], "counts": counts}
            for shard, counts in found.items()
            if shard in sizes
        }
        with contextlib.suppress(OSError):  # files speak for themselves
            self.keep(f"{GROUNDINGS}/{name}/{_INDEX}", json.dumps(index).encode())

    def _sizes(self, name: str) -> dict[str, int]:
        return self.sizes(f"{GROUNDINGS}/{name}", ".parquet")

    def _index(self, name: str) -> dict[str, dict[str, Any]]:
        try:
            held = read_json(self.read(f"{GROUNDINGS}/{name}/{_INDEX}"))
        except (FileNotFoundError, ValueError):
            return {}
        return {shard: one for shard, one in held.items() if _is_entry(one)} if isinstance(held, dict) else {}

    def _look(self, name: str, shard: str, size: int) -> dict[str, int] | str | None:
        """What a file says of its making, or what is wrong with it; None where it has gone."""
        if (name, shard, size) not in self._looked:
            place = _place(name, shard)
            try:
                with self.fs.open(self.path(place), "rb") as file:
                    found: dict[str, int] | str | None = boxes_counts(pq.read_schema(file), shard)
            except FileNotFoundError:
                found = None
            except (pa.ArrowException, OSError, ValueError) as error:
                found = f"{place} cannot be read ({str(error).splitlines()[0]})"
            self._looked[name, shard, size] = found
        return self._looked[name, shard, size]

    def require_boxes(self, name: str) -> None:
        """Raise UserError where a set is not whole, saying what, and what to do."""
        if why := self.unreadable().get(name):
            raise UserError(
                f"{self.url}: boxes {name!r} are not whole: {why}: make them again with macco-prep extract --reground "
                f"--as {name}, as they were made; macco-prep verify --drop takes them out"
            )
        if damaged := self.grounding(name).damaged:
            first, why = min(damaged.items())
            raise UserError(
                f"{self.url}: boxes {name!r} of {len(damaged)} of its shards are not whole ({first}: {why}): "
                f"{self.regrounding(name)} makes them again; macco-prep verify tells of all, and with --drop takes "
                "them out"
            )

    def regrounding(self, name: str) -> str:
        """The command that goes on with a set."""
        given = {
            key: value for key, value in self.groundings()[name].items() if key != "detector_fingerprint"
        }
        words = ["macco-prep", "extract", "--reground", "--out", self.url, "--as", name]
        for key, value in given.items():
            words += [f"--{key.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def put_boxes(self, name: str, shard: str, table: pa.Table, record: Mapping[str, Any]) -> None:
        """Write the boxes of one shard, whole, with a record of how they were made."""
        schema = BOXES.with_metadata({b"record": json.dumps(dict(record)).encode()})
        self.put(_place(name, shard), parquet_bytes(schema, table))
        self._sets, self._looked = None, {}

    def drop_boxes(self, shard: str) -> None:
        """Remove the boxes of a shard whose concepts may be others now."""
        for name in self._records():
            self.remove(_place(name, shard))

    def read_from(self, name: str | None) -> None:
        """From now on read this set's boxes in place of the store's own."""
        self.boxes_of = name
        self._there = self.grounded(name) if name else set()

    def scan(self, table: str, files: Files, held: Mapping[str, str]) -> str:
        """SQL that reads some files of a table; of a further set of boxes those of their shards.

        held: the file of each shard, as `Commits.files` has it.
        """
        if table != "boxes" or self.boxes_of is None:
            return scan(self.url, table, files)
        parts = dict(files) if isinstance(files, Mapping) else dict.fromkeys(files)
        if not parts.keys() <= self._held.keys():
            self._held = {}
            for shard, file in held.items():
                self._held.setdefault(file, []).append(shard)
        shards = [
            shard
            for file, own in parts.items()
            for shard in (self._held.get(file, []) if own is None else own)
            if shard in self._there
        ]
        return boxes_sql(self.url, self.boxes_of, shards)

    def own_boxes(self, shard: str) -> pa.Table:
        """The chosen set's boxes of one shard."""
        assert self.boxes_of is not None
        if shard not in self._there:
            return BOXES.empty_table()
        path = self.path(_place(self.boxes_of, shard))
        return pq.read_table(path, filesystem=self.fs, schema=BOXES, partitioning=None)


def _place(name: str, shard: str) -> str:
    return f"{GROUNDINGS}/{name}/{shard}.parquet"


def _is_entry(value: Any) -> bool:
    """Tell a shard's entry of an index."""
    return isinstance(value, dict) and isinstance(value.get("bytes"), int) and _is_counts(value.get("counts"))


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, int) for one in value.values())


def boxes_counts(schema: pa.Schema, shard: str) -> dict[str, int]:
    """What was counted when a file of this schema was made. Raises ValueError where it has no boxes of `shard`."""
    if not schema.equals(BOXES):
        raise ValueError("it has other columns than boxes have")
    record = read_json((schema.metadata or {}).get(b"record", b"{}"))
    if not isinstance(record, dict) or record.get("shard", shard) != shard:
        raise ValueError(f"it was made of {record.get('shard') if isinstance(record, dict) else record!r}")
    counts: dict[str, int] = record.get("counts", {})
    return counts if _is_counts(counts) else {}


def boxes_sql(root: str, name: str, shards: list[str]) -> str:
    """SQL that reads a set's boxes of some shards."""
    if not shards:
        columns = ", ".join(f"NULL::{_TYPES[field.type]} AS {field.name}" for field in BOXES)
        return f"(SELECT {columns} WHERE false)"
    return parquet(*(literal(f"{root}/{_place(name, shard)}") for shard in shards))


_TYPES: Final = {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.float32(): "FLOAT"}


def all_boxes_sql(root: str, own: str, sets: Mapping[str, list[str]], boxes: str) -> str:
    """The statement that makes the view `all_boxes`: those of every set, and whose they are.

    own: the name of the store's own detector, whose boxes are those of the view `boxes`.
    """
    parts = [f"SELECT {quote(own)} AS detector, * FROM {boxes}"]
    parts += [
        f"SELECT {quote(name)}, * FROM {boxes_sql(root, name, shards)}" for name, shards in sets.items()
    ]
    return f"CREATE OR REPLACE TEMP VIEW all_boxes AS {' UNION ALL '.join(parts)}"


def all_boxes_text(root: str, own: str, names: list[str]) -> str:
    """The same for the duckdb command: it finds the files, and the shards that are committed, by itself."""
    parts = [f"SELECT {quote(own)} AS detector, * FROM boxes"]
    for name in names:
        files = f"{literal(f'{root}/{GROUNDINGS}/{name}')}/*.parquet"
        parts.append(f"SELECT {quote(name)}, * FROM {parquet(files)} SEMI JOIN committed USING (shard)")
    said = "\n-- The boxes of every detector, by its name. The view `boxes` has the store's own.\n"
    return f"{said}CREATE OR REPLACE TEMP VIEW all_boxes AS\n    {' UNION ALL '.join(parts)};\n"
