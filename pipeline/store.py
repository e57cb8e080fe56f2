"""The concept store: Parquet tables by shard, where one small JSON per shard, written last, is the commit."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.schema import NEGATIVE_ROWS, NEGATIVES, READ_VERSIONS, SCHEMA_VERSION, TABLES
from macco.pipeline.views import views_sql

Settings = Mapping[str, Any]

_STAGED = "replacing"  # shards that are to take the place of others, as whole as those
_ROWS = (*TABLES, NEGATIVES)
_PARTS = (*_ROWS, "shards")
_REPLACE = f"{_STAGED}/commit.json"  # while it is there, a replacement is decided and not yet carried out

# Ids share long prefixes with their neighbours, which delta encoding stores once.
_DELTA = ("sample_id", "concept_id", "subject_id", "object_id", "owner_id", "key")


def parquet_bytes(schema: pa.Schema, *tables: pa.Table) -> bytes:
    """Serialise tables, each as row groups of its own, with exactly `schema`: equal rows are equal bytes."""
    out = io.BytesIO()
    delta = [name for name in _DELTA if name in schema.names]
    with pq.ParquetWriter(
        out,
        schema,
        compression="zstd",
        use_dictionary=[name for name in schema.names if name not in delta],
        column_encoding=dict.fromkeys(delta, "DELTA_BYTE_ARRAY"),
    ) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
    return out.getvalue()


class Store(Folder):
    """A concept store at any fsspec URL. `Store.open` reads one; `Store.create` makes or extends one."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock: Any = None

    @classmethod
    def open(cls, url: str) -> "Store":
        """Open an existing store; raise UserError where there is none."""
        store = cls(url)
        if not store.exists("store.json"):
            raise UserError(
                f"{url} is not a concept store (no store.json); make one with: macco-prep extract"
            )
        version = store.description()["schema_version"]
        if version not in READ_VERSIONS:
            raise UserError(
                f"{url} has schema version {version}, this macco reads {READ_VERSIONS}: extract it anew"
            )
        store._go_on()
        return store

    @classmethod
    def create(cls, url: str, settings: Settings) -> "Store":
        """Open a store for writing, made with `settings`; refuse one that was made with others.

        Raises UserError naming the first setting that differs, when another process is writing to it, or
        when nothing can be written there.
        """
        store = cls(url)
        try:
            exists = store.exists("store.json")
        except OSError as error:
            raise UserError(f"cannot read {url}: {error}") from error
        if exists:
            other = cls.open(url)
            if other.description().get("compacted"):
                raise UserError(
                    f"{url} was made by compact and is only read: extend the store that it was made from"
                )
            if other.description()["schema_version"] != SCHEMA_VERSION:
                raise UserError(f"{url} was made by an earlier macco and is only read: choose another --out")
            other._require(settings)
        elif store.local and store.fs.isdir(store.root) and store.fs.ls(store.root):
            names = {name.rsplit("/", 1)[-1] for name in store.fs.ls(store.root, detail=False)}
            if not names <= {*TABLES, "shards", "failed", "views.sql", ".lock"}:
                raise UserError(f"{url} is a folder with other things in it: choose a new --out")
        try:
            for folder in (*TABLES, "shards", "failed"):
                store.make(folder)
            if store.local:
                store._lock = store.lock()
                if store._lock is None:
                    raise UserError(
                        f"another macco-prep is writing to {url}: wait for it, or choose another --out"
                    )
                for folder in ("", *TABLES, "shards", "failed", *(f"{_STAGED}/{name}" for name in _PARTS)):
                    store.sweep(folder)
                store._finish()
            for name, schema in TABLES.items():
                # A view over a glob that matches nothing is an error: a file without rows gives it a schema.
                store.put(f"{name}/_schema.parquet", parquet_bytes(schema))
            store.put("shards/_schema.json", b'{"shard": null}')
            store.write_views()
            if not exists:
                description = {"schema_version": SCHEMA_VERSION, "settings": dict(settings)}
                store.put("store.json", json.dumps(description, indent=1).encode())
        except OSError as error:
            raise UserError(f"cannot write to {url}: {error}") from error
        return store

    def write_views(self) -> None:
        """Write views.sql, which names the folder that the store lies in now. Raises UserError where it cannot."""
        try:
            self.put("views.sql", views_sql(self.url).encode())
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}") from error

    def close(self) -> None:
        """Let others write; the store is done with, or its end does the same."""
        if self._lock is not None:
            self._lock.release()

    def description(self) -> dict[str, Any]:
        """store.json: the schema version, and every setting that shaped the rows."""
        return self._json("store.json")

    def _require(self, settings: Settings) -> None:
        mine = self.description()["settings"]
        for name in sorted({*mine, *settings}):
            if mine.get(name) != settings.get(name):
                raise UserError(
                    f"{self.url} was made with {name} = {mine.get(name)!r}, not {settings.get(name)!r}: "
                    "a store holds rows of one making; use the same setting or another --out"
                )

    def committed(self) -> set[str]:
        """Names of the shards whose rows are complete."""
        return self.names(".json", "shards") - {"_schema"}

    def failed(self) -> set[str]:
        """Names of the shards that were given up."""
        return self.names(".json", "failed")

    def shard(self, name: str) -> dict[str, Any]:
        """The commit record of one shard."""
        return self._json(f"shards/{name}.json")

    def records(self, folder: str = "shards") -> dict[str, dict[str, Any]]:
        """The records of all shards that are committed, or of the "failed" ones, by name and in order."""
        names = sorted(self.names(".json", folder) - {"_schema"})
        files = [f"{folder}/{name}.json" for name in names]
        if self.local:
            return dict(zip(names, map(self._json, files), strict=True))
        with ThreadPoolExecutor(32) as threads:  # an object store takes its time for each
            return dict(zip(names, threads.map(self._json, files), strict=True))

    def failure(self, name: str) -> dict[str, Any]:
        """Why a shard was given up."""
        return self._json(f"failed/{name}.json")

    def table(self, name: str, shard: str) -> pa.Table:
        """One shard's rows of the table `name`."""
        file = self.shard(shard).get("file", shard)  # a compacted store has many shards in one file
        filters = None if file == shard else [("shard", "=", shard)]
        path = self.path(f"{name}/{file}.parquet")
        return pq.read_table(
            path, filesystem=self.fs, schema=TABLES[name], filters=filters, partitioning=None
        )

    def commit(self, shard: str, tables: Mapping[str, pa.Table], record: Mapping[str, Any]) -> None:
        """Write one shard's tables, then its record: from then on its rows are visible.

        Negatives come along where `tables` has them; those of former rows go. Raises UserError where nothing can be
        written (a full disk); nothing of the shard is visible then.
        """
        try:
            # A shard that is done again must not be seen half old, half new.
            self.remove(f"shards/{shard}.json")
            self.remove(f"{NEGATIVES}/{shard}.parquet")
            self._put(shard, tables)
            self.put(f"shards/{shard}.json", json.dumps(dict(record), indent=1).encode())
            self.remove(f"failed/{shard}.json")
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is committed is safe") from error

    def _put(self, shard: str, tables: Mapping[str, pa.Table], above: str = "") -> None:
        for name, schema in TABLES.items():
            self.put(f"{above}{name}/{shard}.parquet", parquet_bytes(schema, tables[name]))
        if NEGATIVES in tables:
            self.make(f"{above}{NEGATIVES}")
            data = parquet_bytes(NEGATIVE_ROWS, tables[NEGATIVES])
            self.put(f"{above}{NEGATIVES}/{shard}.parquet", data)

    def stage(self, shard: str, tables: Mapping[str, pa.Table], record: Mapping[str, Any]) -> None:
        """Write a shard beside what the store holds: nobody sees it until `replace`."""
        try:
            for part in (*TABLES, "shards"):
                self.make(f"{_STAGED}/{part}")
            self._put(shard, tables, f"{_STAGED}/")
            self.put(f"{_STAGED}/shards/{shard}.json", json.dumps(dict(record), indent=1).encode())
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is committed is safe") from error

    def staged(self) -> dict[str, dict[str, Any]]:
        """The records of the shards that are written beside the others, by name."""
        return self.records(f"{_STAGED}/shards")

    def unstage(self, shard: str) -> None:
        """Drop a shard that was written beside the others."""
        self.remove(f"{_STAGED}/shards/{shard}.json")
        for name in _ROWS:
            self.remove(f"{_STAGED}/{name}/{shard}.parquet")

    def replace(self, shards: Sequence[str], gone: Sequence[str] = ()) -> None:
        """Let staged shards take the places of those of the same names and of those that are to be `gone`.

        All at once: a kill before leaves the old shards, one after it the new ones. One in the middle is made
        good by whoever opens the store next.
        """
        try:
            decided = {"shards": list(shards), "gone": sorted({*gone} - {*shards})}
            negatives = self.names(".parquet", f"{_STAGED}/{NEGATIVES}")
            decided["without_negatives"] = [shard for shard in shards if shard not in negatives]
            self.put(_REPLACE, json.dumps(decided).encode())
            self._finish()
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; give the command again") from error

    def _finish(self) -> None:
        """Carry out what `replace` decided, if anything is left of it; twice is once."""
        if not self.exists(_REPLACE):
            return
        decided = self._json(_REPLACE)
        left = [shard for shard in decided["shards"] if self.exists(f"{_STAGED}/shards/{shard}.json")]
        for shard in [*decided["gone"], *left]:  # old rows and new ones are never seen together
            self.remove(f"shards/{shard}.json")
        for shard in left:
            if shard in decided.get("without_negatives", ()):
                self.remove(f"{NEGATIVES}/{shard}.parquet")
            for path in [*(f"{name}/{shard}.parquet" for name in _ROWS), f"shards/{shard}.json"]:
                if self.exists(f"{_STAGED}/{path}"):
                    self.make(path.partition("/")[0])
                    self._move(f"{_STAGED}/{path}", path)
            self.remove(f"failed/{shard}.json")
        for shard in decided["gone"]:
            for path in [*(f"{name}/{shard}.parquet" for name in _ROWS), f"failed/{shard}.json"]:
                self.remove(path)
        self.remove(_REPLACE)

    def _move(self, name: str, to: str) -> None:
        if self.local:
            os.replace(self.path(name), self.path(to))
        else:
            self.fs.mv(self.path(name), self.path(to))

    def _go_on(self) -> None:
        """Finish what a killed process decided, unless that process is another and still at work."""
        if not self.exists(_REPLACE):
            return
        try:
            lock = self.lock() if self.local else None
            if lock is not None or not self.local:
                self._finish()
            if lock is not None:
                lock.release()
        except OSError as error:
            raise UserError(
                f"a replacement of shards in {self.url} was cut short, and cannot be finished here: {error}"
            ) from error

    def commit_compacted(self, shards: Sequence[str], source: "Store") -> None:
        """Put some shards of another store into one file per table, a row group or more for each shard."""
        file = f"{shards[0]}..{shards[-1]}"
        for name, schema in TABLES.items():
            self.put(
                f"{name}/{file}.parquet", parquet_bytes(schema, *(source.table(name, s) for s in shards))
            )
        for shard in shards:
            if source.exists(name := f"{NEGATIVES}/{shard}.parquet"):  # which are read by shard
                self.make(NEGATIVES)
                self.put(name, source.read(name))
            record = source.shard(shard) | {"file": file}
            self.put(f"shards/{shard}.json", json.dumps(record, indent=1).encode())

    def mark_compacted(self) -> None:
        """From now on this store is only read: its files hold more than one shard."""
        self.put("store.json", json.dumps(self.description() | {"compacted": True}, indent=1).encode())

    def fail(self, shard: str, record: Mapping[str, Any]) -> None:
        """Note that a shard was given up, with the reason."""
        self.put(f"failed/{shard}.json", json.dumps(dict(record), indent=1).encode())

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self.read(name))
        except ValueError as error:
            raise UserError(
                f"{self.url}/{name} is not valid JSON ({error}): restore it or delete it"
            ) from error
        if not isinstance(value, dict):
            raise UserError(f"{self.url}/{name} holds no JSON object: restore it or delete it")
        return value


def open_store(url: str) -> Store:
    """Open the concept store at a folder or any fsspec URL; raises UserError where there is none."""
    return Store.open(url)
