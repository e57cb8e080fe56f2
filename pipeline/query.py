"""Ad-hoc SQL over a store, printed or written in the format asked for."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.pipeline.views import connect

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

    def answer() -> None:
        if format == "table":
            result = connection.sql(sql)
            print("done" if result is None else result, file=stream or sys.stdout)
        else:
            target = (out or "/dev/stdout").replace("'", "''")
            header = ", HEADER" if format == "csv" else ""
            connection.execute(f"COPY ({sql.strip().rstrip(';')}) TO '{target}' (FORMAT {format}{header})")

    try:
        with ThreadPoolExecutor(1) as thread:  # beside this one, which hears Ctrl-C; DuckDB at work may not
            try:
                thread.submit(answer).result()
            except KeyboardInterrupt:
                connection.interrupt()
                raise
    except duckdb.Error as error:
        raise UserError(f"DuckDB: {error}") from error
