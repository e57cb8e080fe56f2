"""Ad-hoc SQL over a store, printed or written in the format asked for, for `macco-prep sql`."""

import sys
from typing import IO, Final

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
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
            print(result if result is not None else "done", file=stream or sys.stdout)
        else:
            target = quote(out or "/dev/stdout")
            header = ", HEADER" if format == "csv" else ""
            connection.execute(f"COPY ({sql.strip().rstrip(';')}) TO {target} (FORMAT {format}{header})")
    except duckdb.Error as error:
        raise UserError(f"DuckDB: {error}") from error
