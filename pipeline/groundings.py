"""Boxes of further detectors, beside a store's own: each set has a name, and a reader has those of one set."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.schema import BOXES
from macco.pipeline.views import Files, literal, parquet, quote, scan

# STORE/groundings/NAME.json: its settings; STORE/groundings/NAME/<shard>.parquet: rows of BOXES, which with their file
# are there or not. They go where the shard's rows change.
GROUNDINGS: Final = "groundings"


class Groundings(Folder):
    """What a store has of them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.boxes_of: str | None = None  # whose boxes are read; None: the store's own
        self._sets: dict[str, dict[str, Any]] | None = None
        self._there: set[str] = set()  # shards that these have
        self._held: dict[str, list[str]] = {}  # shards by the stem of their files

    def groundings(self) -> dict[str, dict[str, Any]]:
        """The settings of each further set of boxes, by name."""
        if self._sets is None:
            names = sorted(self.names(".json", GROUNDINGS))
            self._sets = {name: json.loads(self.read(f"{GROUNDINGS}/{name}.json")) for name in names}
        return self._sets

    def begin_grounding(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a set, or go on with it. Raises UserError where it was made with other settings."""
        known = self.groundings().get(name)
        if known is None:
            self.make(f"{GROUNDINGS}/{name}")
            self.put(f"{GROUNDINGS}/{name}.json", json.dumps(dict(settings), indent=1).encode())
            self._sets = None
            return
        for key in sorted({*known, *settings}):
            if known.get(key) != settings.get(key):
                raise UserError(
                    f"boxes {name!r} of {self.url} were made with {key} = {known.get(key)!r}, not "
                    f"{settings.get(key)!r}: give them another name with --as, or the same settings"
                )

    def grounded(self, name: str) -> set[str]:
        """The shards that a set has boxes of."""
        return self.names(".parquet", f"{GROUNDINGS}/{name}")

    def put_boxes(self, name: str, shard: str, table: pa.Table, record: Mapping[str, Any]) -> None:
        """Write the boxes of one shard, whole, with a record of how they were made."""
        schema = BOXES.with_metadata({b"record": json.dumps(dict(record)).encode()})
        self.put(_place(name, shard), parquet_bytes(schema, table))

    def boxes_record(self, name: str, shard: str) -> dict[str, Any]:
        """How the boxes of one shard were made."""
        with self.fs.open(self.path(_place(name, shard)), "rb") as file:
            found: dict[str, Any] = json.loads((pq.read_schema(file).metadata or {}).get(b"record", b"{}"))
        return found

    def drop_boxes(self, shard: str) -> None:
        """Remove the boxes of a shard whose concepts may be others now."""
        for name in self.groundings():
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
