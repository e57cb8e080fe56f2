"""The shards of a store: written, then made visible by a record; read; done again; taken out."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.commits import NO_ROW, PACKS, Commits, Packs, alone, file_of, read_commits
from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.groundings import Groundings
from macco.pipeline.lease import NAME as WRITER
from macco.pipeline.lease import check
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.records import GONE, Record, is_record, read_json
from macco.pipeline.schema import NEGATIVE_ROWS, NEGATIVES, TABLES, TEXTS

MAX_NAME: Final = 180  # bytes of a shard's name: file systems take 255, and files' own endings are to come

_STAGED = "replacing"  # shards that are to take the place of others, as whole as those
DECIDED: Final = (
    f"{_STAGED}/commit.json"  # while it is there, a replacement is decided and not yet carried out
)


class Shards(Groundings):
    """A folder of shards: Parquet tables, where one small JSON per shard, written last, is the commit."""

    def __init__(self, url: str, writer: str | None = None) -> None:
        """writer: id of the lease under which this process writes, where the folder needs one."""
        super().__init__(url)
        self.writer = writer
        self._packs = Packs(Folder(url))  # not itself: a lock lives as long as the last that knows it

    def description(self) -> dict[str, Any]:
        """store.json: the schema version, and every setting that shaped the rows."""
        return self._json("store.json")

    def commits(self) -> Commits:
        """What is committed now. Raises UserError for a record that cannot be read."""
        compacted = bool(self.description().get("compacted"))
        while True:
            found = read_commits(self, self._packs, self._loose(), compacted=compacted)
            # What was merged while we looked seems to miss its files.
            if not found.damaged or self.names(".parquet", PACKS) - {NO_ROW} == {*found.packs}:
                return found

    def committed(self) -> set[str]:
        """Names of the shards whose rows are complete, and there."""
        return {*self.commits().shards}

    def failed(self) -> set[str]:
        """Names of the shards that were given up."""
        return self.names(".json", "failed")

    def shard(self, name: str) -> Record:
        """The commit record of one shard."""
        try:
            record: Record | None = self._json(f"shards/{name}.json")
        except FileNotFoundError:
            record = self._packs.record(name)
        if record is None or record.get(GONE):
            raise UserError(f"{self.url} holds no shard {name!r}")
        return record

    def records(self, folder: str = "shards") -> dict[str, Record]:
        """The records of all shards that are committed and whole, or of the "failed" ones, by name and in order."""
        if folder != "shards":
            return self._loose(folder)
        commits = self.commits()
        there = {*commits.shards}
        found = self._packs.records() | commits.records
        found = {name: record for name, record in found.items() if name in there}
        return dict(sorted(found.items()))

    def _loose(self, folder: str = "shards") -> dict[str, Record]:
        """The records that are files of their own; what goes while they are read is in a pack by now."""
        names = sorted(self.names(".json", folder) - {NO_ROW})

        def read(name: str) -> Record | None:
            try:
                return self._json(f"{folder}/{name}.json")
            except FileNotFoundError:
                return None

        if self.local:
            found = list(map(read, names))
        else:
            with ThreadPoolExecutor(32) as threads:  # an object store takes its time for each
                found = list(threads.map(read, names))
        return {name: record for name, record in zip(names, found, strict=True) if record is not None}

    def failure(self, name: str) -> Record:
        """Why a shard was given up."""
        return self._json(f"failed/{name}.json")

    def table(self, name: str, shard: str) -> pa.Table:
        """One shard's rows of the table `name`; boxes are those of the chosen detector."""
        if name == "boxes" and self.boxes_of is not None:
            return self.own_boxes(shard)
        file = file_of(shard, self.shard(shard))
        filters = None if alone(shard, file) else [("shard", "=", shard)]  # or a file that holds many
        path = self.path(f"{name}/{file}.parquet")
        return pq.read_table(
            path, filesystem=self.fs, schema=TABLES[name], filters=filters, partitioning=None
        )

    def require_whole(self, *, all_boxes: bool = False) -> None:
        """Raise UserError where a committed shard is not whole, or the boxes of the chosen detector (of all)."""
        if damaged := self.commits().damaged:
            first, why = min(damaged.items())
            raise UserError(
                f"{self.url}: {len(damaged)} of its shards {'is' if len(damaged) == 1 else 'are'} not whole ({first}: "
                f"{why}): the extract command that made them does them again; macco-prep verify tells of all, and "
                "with --drop takes them out"
            )
        for name in self.sets() if all_boxes else filter(None, [self.boxes_of]):
            self.require_boxes(name)

    def commit(self, shard: str, tables: Mapping[str, pa.Table], record: Mapping[str, Any]) -> None:
        """Write one shard's tables, then its record: from then on its rows are visible, in place of its former ones.

        Negatives come along where `tables` has them; those of former rows go. Raises UserError where nothing can be
        written (a full disk), or where another process has become the writer; no row has changed then.
        """
        fit(shard)
        try:
            before = self._own(shard)
            etag = self._etag(f"shards/{shard}.json", there=before is not None)
            file = self._free_name(shard, before)
            made = self._write(shard, file, tables, record)
            self.check_writer()
            self._drop_texts(shard)
            self._put_negatives(shard, tables)
            self._put_over(f"shards/{shard}.json", made, etag)
            if before is not None:
                self._drop(shard, before)
            self.remove(f"failed/{shard}.json")
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is committed is safe") from error

    def _free_name(self, shard: str, before: Record | None) -> str:
        """The stem of a shard's new files, other than that of its old ones: those are whole until the new ones are.

        Where a lease may be lost unseen, it is also other than that of the files of another writer.
        """
        taken = before is not None and not before.get(GONE) and file_of(shard, before) == shard
        return f"{shard}~{uuid.uuid4().hex[:8]}" if taken or self.writer is not None else shard

    def stage(self, shard: str, tables: Mapping[str, pa.Table], record: Mapping[str, Any]) -> None:
        """Write a shard beside what the store holds: nobody sees it until `replace`."""
        fit(shard)
        try:
            self.make(f"{_STAGED}/shards")
            file = f"{shard}~{uuid.uuid4().hex[:8]}"
            self.remove(f"{_STAGED}/{NEGATIVES}/{shard}.parquet")
            self._put_negatives(shard, tables, f"{_STAGED}/")
            made = self._write(shard, file, tables, record)
            self.check_writer()
            self.put(f"{_STAGED}/shards/{shard}.json", made)
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is committed is safe") from error

    def check_writer(self) -> None:
        """Raise UserError where another process has become the writer, while this one stood still: one request."""
        if self.writer is not None:
            check(self, self.writer)

    def _etag(self, name: str, *, there: bool = True) -> str | None:
        return self.etag(name) if there and self.writer is not None else None

    def _put_over(self, name: str, data: bytes, etag: str | None) -> None:
        """Put what makes rows visible. Where a lease may be lost after it was asked for: not over what another put."""
        if self.writer is None:
            self.put(name, data)
            return
        while not self.put_over(name, data, etag):
            etag = self.etag(name)
            self.check_writer()  # what came in between is of one that has lost the lease: it goes

    def _write(
        self, shard: str, file: str, tables: Mapping[str, pa.Table], record: Mapping[str, Any]
    ) -> bytes:
        """Write a shard's tables; the record that makes them visible, once it is there."""
        data = {name: parquet_bytes(schema, tables[name]) for name, schema in TABLES.items()}
        for name in TABLES:
            self.put(f"{name}/{file}.parquet", data[name])
        own: Record = {} if file == shard else {"file": file}
        own |= {name: tables[name].num_rows for name in TABLES}
        statuses = Counter(tables["samples"]["status"].to_pylist())
        own |= {"statuses": dict(sorted(statuses.items()))}
        own |= {NEGATIVES: tables[NEGATIVES].num_rows} if NEGATIVES in tables else {}
        own |= {"bytes": {name: len(data[name]) for name in TABLES}}
        return json.dumps(dict(record) | own, indent=1).encode()

    def _put_negatives(self, shard: str, tables: Mapping[str, pa.Table], above: str = "") -> None:
        if NEGATIVES in tables:
            self.make(f"{above}{NEGATIVES}")
            data = parquet_bytes(NEGATIVE_ROWS, tables[NEGATIVES])
            self.put(f"{above}{NEGATIVES}/{shard}.parquet", data)

    def _drop_texts(self, shard: str, but: str | None = None) -> None:
        """Remove what was made of the captions of a shard whose captions may be others now."""
        for name in TEXTS:
            if name != but:
                self.remove(f"{name}/{shard}.parquet")
        self.drop_boxes(shard)

    def staged(self) -> dict[str, Record]:
        """The records of the shards that are written beside the others, by name."""
        return self.records(f"{_STAGED}/shards")

    def unstage(self, shard: str) -> None:
        """Drop a shard that was written beside the others."""
        record = self._json(f"{_STAGED}/shards/{shard}.json")
        self.remove(f"{_STAGED}/shards/{shard}.json")
        self.remove(f"{_STAGED}/{NEGATIVES}/{shard}.parquet")
        self._drop(shard, record)

    def replace(self, shards: Sequence[str], gone: Sequence[str] = ()) -> None:
        """Let staged shards take the places of those of the same names and of those that are to be `gone`.

        All at once: a kill before leaves the old shards, one after it the new ones. One in the middle is made
        good by whoever opens the store next.
        """
        try:
            self.check_writer()
            decided = {"shards": list(shards), "gone": sorted({*gone} - {*shards})}
            self._put_over(DECIDED, json.dumps(decided).encode(), None)
            self.check_writer()
            self.finish()
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; give the command again") from error

    def drop(self, shards: Sequence[str]) -> None:
        """Take shards out. Raises UserError where nothing can be written."""
        try:
            for shard in shards:
                self._take_out(shard)
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}") from error

    def _take_out(self, shard: str) -> None:
        """A pack never changes: a shard of one is marked as gone, until its rows are put together with others'."""
        before = self._own(shard)
        if self._packs.record(shard) is not None:
            self.put(f"shards/{shard}.json", json.dumps({"shard": shard, GONE: True}).encode())
        else:
            self.remove(f"shards/{shard}.json")
        if before is not None:
            self._drop(shard, before)
        self._drop_texts(shard)
        self.remove(f"failed/{shard}.json")

    def finish(self) -> None:
        """Carry out what `replace` decided, if anything is left of it; twice is once."""
        if not self.exists(DECIDED):
            return
        decided, staged = self._json(DECIDED), self._loose(f"{_STAGED}/shards")
        for shard in decided["gone"]:  # old rows and new ones are never seen together
            self._take_out(shard)
        for shard in decided["shards"]:
            if shard in staged:
                before, negatives = self._own(shard), f"{_STAGED}/{NEGATIVES}/{shard}.parquet"
                self._drop_texts(shard, but=NEGATIVES if NEGATIVES in staged[shard] else None)
                if self.exists(negatives):
                    self.make(NEGATIVES)
                    self._move(negatives, f"{NEGATIVES}/{shard}.parquet")
                self.put(f"shards/{shard}.json", json.dumps(staged[shard], indent=1).encode())
                self.remove(f"{_STAGED}/shards/{shard}.json")
                if before is not None and file_of(shard, before) != file_of(shard, staged[shard]):
                    self._drop(shard, before)
                self.remove(f"failed/{shard}.json")
        self.remove(DECIDED)

    def _move(self, name: str, to: str) -> None:
        if self.local:
            os.replace(self.path(name), self.path(to))
        else:
            self.fs.mv(self.path(name), self.path(to))

    def _own(self, shard: str) -> Record | None:
        """A shard's record that is a file of its own."""
        try:
            return self._json(f"shards/{shard}.json")
        except FileNotFoundError:
            return None

    def _drop(self, shard: str, record: Record) -> None:
        """Remove the files that a shard had alone, by a record that holds no longer."""
        if not record.get(GONE) and alone(shard, file_of(shard, record)):
            for name in TABLES:
                self.remove(f"{name}/{file_of(shard, record)}.parquet")

    def go_on(self) -> None:
        """Finish what a killed process decided, unless that process is another and still at work."""
        if not self.exists(DECIDED):
            return
        if self.exists(WRITER):
            raise UserError(
                f"shards of {self.url} are being replaced: ask again when that is done, or, if nobody writes to it any "
                "more, give the command that did it again"
            )
        try:
            lock = self.lock() if self.local else None
            if lock is not None or not self.local:
                self.finish()
            if lock is not None:
                lock.release()
        except OSError as error:
            raise UserError(
                f"a replacement of shards in {self.url} was cut short, and cannot be finished here: {error}"
            ) from error

    def fail(self, shard: str, record: Mapping[str, Any]) -> None:
        """Note that a shard was given up, with the reason."""
        self.put(f"failed/{shard}.json", json.dumps(dict(record), indent=1).encode())

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = read_json(self.read(name))
        except ValueError as error:
            raise UserError(f"{self.url}/{name} is not valid JSON ({error}): {restore(name)}") from error
        if not isinstance(value, dict):
            raise UserError(f"{self.url}/{name} holds no JSON object: {restore(name)}")
        if name.startswith("shards/") and not is_record(value):
            raise UserError(f"{self.url}/{name} is no shard's record: {restore(name)}")
        return value


def fit(shard: str) -> None:
    """Raise UserError for a name that no shard can have: it names files, on any file system, and is part of ids."""
    bad = shard in ("", NO_ROW) or shard[0] == "." or any(ord(c) < 32 or c in "/\\\x7f" for c in shard)
    if bad or len(shard.encode("utf-8", "surrogatepass")) > MAX_NAME or not shard.isprintable():
        raise UserError(
            f"{shard[:80]!r} is no name of a shard: rename the file (files are named so in the store)"
        )


def restore(name: str) -> str:
    if name.startswith("shards/"):
        return "delete it, and the extract command does that shard again"
    return "restore it from a copy"
