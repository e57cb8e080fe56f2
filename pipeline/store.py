"""The concept store: what its rows were made with, who may write it, and its shards."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from macco.pipeline.commits import INDEX, NO_ROW, PACKS
from macco.pipeline.errors import UserError
from macco.pipeline.folder import TEMPORARY
from macco.pipeline.groundings import all_boxes_text
from macco.pipeline.lease import Lease
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.schema import READ_VERSIONS, SCHEMA_VERSION, TABLES
from macco.pipeline.settings import difference
from macco.pipeline.shards import Shards, restore
from macco.pipeline.views import views_sql

Settings = Mapping[str, Any]

_FOLDERS: Final = (*TABLES, PACKS, "shards", "failed", "replacing/shards")
_COPYING: Final = "copying.json"  # while it is there, this is a copy that is not whole
_SHARED: Final = ("s3", "s3a", "gs", "gcs")  # object stores that create an object once
_OURS: Final = re.compile(r".*[~+][0-9a-f]{8}")  # names that only macco gives


class Store(Shards):
    """A concept store at any fsspec URL. `Store.open` reads one; `Store.create` makes or extends one."""

    def __init__(self, url: str, writer: str | None = None) -> None:
        super().__init__(url, writer)
        self._lock: Any = None

    @classmethod
    def open(cls, url: str) -> "Store":
        """Open an existing store; raise UserError where there is none."""
        store = cls._described(url)
        store.go_on()
        return store

    @classmethod
    def _described(cls, url: str) -> "Store":
        store = cls(url)
        if not store.exists("store.json"):
            raise UserError(
                f"{url} is not a concept store (no store.json); make one with: macco-prep extract"
            )
        description = store.description()
        version = description.get("schema_version")
        if version is None or not isinstance(description.get("settings"), dict):
            raise UserError(f"{url}/store.json lacks schema_version or settings: {restore('store.json')}")
        if version not in READ_VERSIONS:
            raise UserError(
                f"{url} has schema version {version}, this macco reads {READ_VERSIONS}: extract it anew"
            )
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
            other = cls._described(url)
            if other.description().get("compacted"):
                raise UserError(
                    f"{url} was made by compact and is only read: extend the store that it was made from"
                )
            if other.description()["schema_version"] != SCHEMA_VERSION:
                raise UserError(f"{url} was made by an earlier macco and is only read: choose another --out")
            other._require(settings)
        else:
            store._refuse_others()
        try:
            store._begin()
            if not exists:
                store._describe(settings)
                store.write_views()  # which name the detector
        except OSError as error:
            raise UserError(f"cannot write to {url}: {error}") from error
        return store

    @classmethod
    def copy(cls, url: str) -> "Store":
        """Begin a new store that is none before `finish_copy`; what is left of an earlier beginning goes.

        Raises UserError where anything else is at `url`, OSError where nothing can be written.
        """
        store = cls(url)
        begun = store.exists(_COPYING) and not store.exists("store.json")
        if not begun and store.fs.exists(store.root):
            raise UserError(f"there is something at {url}: choose a new --out")
        store.make()
        store.put(_COPYING, b"{}")
        store._begin()
        for folder in (PACKS, *TABLES):
            for name in store.names(".parquet", folder):
                store.remove(f"{folder}/{name}.parquet")
        store._begin_tables()
        return store

    def finish_copy(self, settings: Settings) -> None:
        """From now on a copy is a store."""
        self._describe(settings)
        self.write_views()
        self.remove(_COPYING)

    @property
    def detector(self) -> str:
        """The name of the store's own boxes: the detector that it was extracted with."""
        return str(self.description()["settings"].get("detector", "imported"))

    def choose_boxes(self, name: str | None, *, looking: bool = False) -> "Store":
        """Read the boxes of one detector from now on; returns the store itself.

        Raises UserError for a name that is none, a set that is not complete or (unless the caller only looks, and asks
        `require_whole` in the end) not whole, and for no name where there are several.
        """
        own, sets = self.detector, self.sets()
        known = ", ".join([own, *sets])
        if not name and sets:
            raise UserError(
                f"{self.url} has boxes of {known}: choose one with --detector (in macco-train with data.detector=)"
            )
        if not name or name == own:
            self.read_from(None)
            return self
        if name not in sets:
            raise UserError(f"{self.url} has no boxes of {name!r}: choose one of {known}")
        if name in self.unreadable() or not looking:
            self.require_boxes(name)
        found = self.grounding(name)
        if missing := self.committed() - found.shards.keys() - found.damaged.keys():
            raise UserError(
                f"{self.url} has no boxes of {name!r} in {len(missing)} shards, such as {min(missing)}: go on with "
                f"{self.regrounding(name)}"
            )
        self.read_from(name)
        return self

    @property
    def made_with(self) -> dict[str, Any]:
        """The settings that shaped the rows: of boxes, those of the chosen detector."""
        settings: dict[str, Any] = self.description()["settings"]
        return settings | (self.groundings()[self.boxes_of] if self.boxes_of is not None else {})

    def close(self) -> None:
        """Let others write; the store is done with, or its end does the same."""
        if self._lock is not None:
            self._lock.release()

    def write_views(self) -> None:
        """Write views.sql, which names the folder that the store lies in now. Raises UserError where it cannot."""
        try:
            if not self.exists(f"{PACKS}/{NO_ROW}.parquet"):
                self.make(PACKS)
                self.put(f"{PACKS}/{NO_ROW}.parquet", parquet_bytes(INDEX, INDEX.empty_table()))
            text = views_sql(self.url)
            sets = [name for name in self.groundings() if self.grounded(name)]
            if self.exists("store.json"):
                text += all_boxes_text(self.url, self.detector, sets)
            self.keep("views.sql", text.encode())
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}") from error

    def _begin(self) -> None:
        """Be the one writer, and make good what a killed one left."""
        for folder in _FOLDERS:
            self.make(folder)
        if self.local:
            self._lock = self.lock()
            if self._lock is None:
                raise UserError(
                    f"another macco-prep is writing to {self.url}: wait for it, or choose another --out"
                )
            for folder in ("", *_FOLDERS):
                self.sweep(folder)
        elif self.url.partition("://")[0] in _SHARED:
            self._lock = Lease(self)
            self.writer = self._lock.id
        self.finish()
        self._begin_tables()
        self.write_views()

    def _begin_tables(self) -> None:
        """A view over a glob that matches nothing is an error: a file without rows gives it a schema."""
        for name, schema in (TABLES | {PACKS: INDEX}).items():
            self.make(name)
            self.keep(f"{name}/{NO_ROW}.parquet", parquet_bytes(schema, schema.empty_table()))
        self.keep(f"shards/{NO_ROW}.json", b'{"shard": null}')

    def sweep_tables(self) -> None:
        """Remove files of shards that a killed writer no longer, or not yet, needed. The caller is the one writer."""
        found = self.commits()
        staged = {record.get("file") for record in self.staged().values()}
        for path in found.foreign:
            file = path.partition("/")[2].removesuffix(".parquet")
            if file not in staged and (_OURS.fullmatch(file) or file in found.files):
                self.remove(path)

    def _describe(self, settings: Settings) -> None:
        description = {"schema_version": SCHEMA_VERSION, "settings": dict(settings)}
        self.put("store.json", json.dumps(description, indent=1).encode())

    def _refuse_others(self) -> None:
        """Raise UserError where a folder holds what is no part of a store, or shards that nothing describes."""
        if self.local and self.fs.isdir(self.root):
            names = {name.rsplit("/", 1)[-1] for name in self.fs.ls(self.root, detail=False)}
            names = {name for name in names if not name.startswith(TEMPORARY)}  # of one killed at the start
            ours = {folder.partition("/")[0] for folder in _FOLDERS}
            if _COPYING in names:
                raise UserError(f"{self.url} is a copy that was cut short: give the compact command again")
            if not names <= {*ours, "views.sql", ".lock"}:
                raise UserError(f"{self.url} is a folder with other things in it: choose a new --out")
        if (self.names(".json", "shards") | self.names(".parquet", PACKS)) - {NO_ROW}:
            raise UserError(
                f"{self.url} holds shards, and no store.json that says how they were made: "
                f"{restore('store.json')}, or choose a new --out"
            )

    def _require(self, settings: Settings) -> None:
        mine = self.description()["settings"]
        if name := difference(mine, settings):
            raise UserError(
                f"{self.url} was made with {name} = {mine.get(name)!r}, not {settings.get(name)!r}: "
                "a store holds rows of one making; use the same setting or another --out"
            )


def open_store(url: str | Path) -> Store:
    """Open the concept store at a folder or any fsspec URL; raises UserError where there is none."""
    return Store.open(str(url))
