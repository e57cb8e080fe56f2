"""Ad-hoc SQL over a store, printed or written in the format asked for, for `macco-prep sql`."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Final

from macco.pipeline.errors import UserError
from macco.pipeline.folder import leads_elsewhere, replacing
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.urls import is_local
from macco.pipeline.views import quote

FORMATS: Final = ("table", "csv", "json", "parquet")


def query(
    store: Store, sql: str, format: str = "table", out: str | None = None, stream: IO[str] | None = None
) -> None:
    """Run one SQL statement on the store's views.

    `table` is for eyes (DuckDB shortens long ones), `csv`, `json` (one object a line) and `parquet` are whole.
    Raises UserError for a mistake in the statement, or an output that cannot be written.
    """
    import duckdb

    if format not in FORMATS:
        raise UserError(f"--format is {format!r}: choose one of {', '.join(FORMATS)}")
    if format == "parquet" and out is None:
        raise UserError("--format parquet needs --out FILE")
    if format == "table" and out is not None:
        raise UserError("--format table goes to the terminal: choose csv, json or parquet with --out")
    connection = connect(store)
    try:
        if format == "table":
            result = connection.sql(sql)
            with ThreadPoolExecutor(1) as thread:  # DuckDB does not hear Ctrl-C while it draws a table
                drawn = thread.submit(str, "done" if result is None else result)
                try:
                    print(drawn.result(), file=stream or sys.stdout)
                except KeyboardInterrupt:
                    connection.interrupt()
                    raise
        else:
            with _target(out) as target:
                options = f"FORMAT {format}, USE_TMP_FILE false" + (", HEADER" if format == "csv" else "")
                connection.execute(f"COPY ({sql.strip().rstrip(';')}) TO {quote(target)} ({options})")
    except duckdb.Error as error:
        raise UserError(f"DuckDB: {error}") from error


@contextmanager
def _target(out: str | None) -> Iterator[str]:
    """What DuckDB writes to: a file that is there whole or not at all, unless `out` leads elsewhere."""
    out = out or "/dev/stdout"
    if not is_local(out) or leads_elsewhere(out):
        yield out
        return
    with replacing(out) as file:
        yield str(file)
