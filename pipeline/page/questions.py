"""What the page asks DuckDB: each question has its limit, none waits for another, and all can be ended."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import duckdb
import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.page.condition import rows
from macco.pipeline.query import connect, reason
from macco.pipeline.store import Store

SECONDS: Final = 30  # after which a question is given up
TICK: Final = 0.1  # seconds between looks at whether it is
IDLE: Final = 2  # connections that wait for the next condition


class Questions:
    """Questions to a store, from any number of threads."""

    def __init__(self, store: Store) -> None:
        self.ended = False
        self._store = store
        self._lock = threading.Lock()
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._tagged = 0  # how often; views of the tags are of one time

    def end(self) -> None:
        """Interrupt all that run, and all to come. A signal's handler may call it: it takes no lock."""
        self.ended = True

    def close(self) -> None:
        self.end()
        self.forget()

    def forget(self) -> None:
        """The tags have changed."""
        with self._lock:
            self._tagged += 1
            old, self._idle = self._idle, []
        for connection in old:
            connection.close()

    @contextmanager
    def limited(
        self, connection: duckdb.DuckDBPyConnection, seconds: float | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Interrupt what a connection does once it takes too long; raises UserError then."""
        seconds = SECONDS if seconds is None else seconds
        done, last = threading.Event(), monotonic() + seconds

        def watch() -> None:
            while not done.wait(TICK):
                if self.ended or monotonic() > last:
                    connection.interrupt()  # each time: one that comes between two statements ends neither

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield connection
        except duckdb.InterruptException as error:
            late = f"this takes more than {seconds} s: ask for less"
            raise UserError("the server is ending" if self.ended else late) from error
        finally:
            done.set()
            watching.join()

    def met(self, where: str) -> tuple[pa.Table, str]:
        """Shard and key of the images that meet a condition, and the rows that it is about, as SQL after FROM."""
        with self._views() as connection, self.limited(connection):
            try:
                found = rows(connection, where)
                sql = f"SELECT DISTINCT shard, key FROM {found}"
                return connection.sql(sql).to_arrow_table(), found
            except duckdb.InterruptException:
                raise
            except duckdb.Error as error:
                raise UserError(f"--where {where!r}: DuckDB: {reason(error)}") from error

    @contextmanager
    def _views(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the store's views, which no other question has."""
        with self._lock:
            tagged, found = self._tagged, self._idle.pop() if self._idle else None
        connection = found or connect(self._store, sealed=True)
        try:
            yield connection
        finally:
            with self._lock:
                if keep := tagged == self._tagged and len(self._idle) < IDLE:
                    self._idle.append(connection)
            if not keep:
                connection.close()
