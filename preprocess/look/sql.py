"""Ad-hoc SQL over a store, printed or written in the format asked for, for `macco-prep sql`."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from macco.pipeline import readonly
from macco.pipeline.errors import UserError
from macco.pipeline.folder import leads_elsewhere, open_through, replacing
from macco.pipeline.query import connect, reason
from macco.pipeline.store import Store
from macco.pipeline.urls import is_local
from macco.pipeline.views import quote

if TYPE_CHECKING:
    import duckdb

FORMATS: Final = ("table", "csv", "json", "parquet")


def query(
    store: Store,
    sql: str,
    format: str = "table",
    out: str | None = None,
    stream: IO[str] | None = None,
    *,
    read_only: bool = False,
) -> None:
    """Run SQL on the store's views: one question, after any statements that prepare it (SET, CREATE TEMP ...).

    read_only: the question may be anyone's. It is a single SELECT, and reaches no file outside the store.

    `table` is for eyes (DuckDB shortens long ones), `csv`, `json` (one object a line) and `parquet` are whole.
    Raises UserError for a mistake in the SQL, or an output that cannot be written.
    """
    check(format, out)
    ask(connect(store, sealed=read_only), sql, format, out, stream, read_only=read_only)


def check(format: str, out: str | None) -> None:
    """Raise UserError where answers cannot be given like that."""
    if format not in FORMATS:
        raise UserError(f"--format is {format!r}: choose one of {', '.join(FORMATS)}")
    if format == "parquet" and out is None:
        raise UserError("--format parquet needs --out FILE")
    if format == "table" and out is not None:
        raise UserError("--format table goes to the terminal: choose csv, json or parquet with --out")


def ask(
    connection: "duckdb.DuckDBPyConnection",
    sql: str,
    format: str = "table",
    out: str | None = None,
    stream: IO[str] | None = None,
    *,
    read_only: bool = False,
) -> None:
    """Answer one question on a connection that `connect` made, as `query` does; Ctrl-C interrupts it."""
    import duckdb

    def answer() -> None:
        question = (
            connection.extract_statements(readonly.question(sql))[0]
            if read_only
            else _prepared(connection, sql)
        )
        if format == "table":
            result = connection.sql(_bare(question.query))
            print("done" if result is None else result, file=stream or sys.stdout)
            return
        if not rows(question):
            raise UserError(f"--format {format} is for a SELECT: this statement can be shown as a table")
        options = f"FORMAT {format}, USE_TMP_FILE false" + (", HEADER" if format == "csv" else "")
        with _target(out or "/dev/stdout") as target:
            # A comment that the question ends in ends with its line.
            asked, writer = f"(\n{_bare(question.query)}\n)", connection
            if read_only:  # whose connection writes nothing: another one does
                asked, writer = "answer", duckdb.connect()
                writer.register("answer", connection.sql(_bare(question.query)).to_arrow_reader())
            writer.execute(f"COPY {asked} TO {quote(target)} ({options})")

    try:
        with ThreadPoolExecutor(1) as thread:  # beside this one, which hears Ctrl-C; DuckDB at work may not
            try:
                thread.submit(answer).result()
            except KeyboardInterrupt:
                connection.interrupt()
                raise
    except duckdb.Error as error:
        raise UserError(f"DuckDB: {reason(error)}") from error


def rows(statement: "duckdb.Statement") -> bool:
    """Tell a question from a statement that does something."""
    import duckdb

    # PIVOT is several
    return statement.type in (duckdb.StatementType.SELECT, duckdb.StatementType.MULTI)


def statements(connection: "duckdb.DuckDBPyConnection", sql: str) -> "list[duckdb.Statement]":
    """The statements of a text; raises UserError where it is none of SQL's."""
    import duckdb

    try:
        return list(connection.extract_statements(sql))
    except duckdb.Error as error:
        raise UserError(f"DuckDB: {reason(error)}") from error


def _prepared(connection: "duckdb.DuckDBPyConnection", sql: str) -> "duckdb.Statement":
    """Run all statements but the last, which is returned."""
    import duckdb

    statements = connection.extract_statements(sql)
    if not statements:
        raise UserError(f"{sql!r} holds no statement: ask for example 'SELECT count(*) FROM samples'")
    *first, last = statements
    if any(statement.type == duckdb.StatementType.SELECT for statement in first):
        raise UserError(f"there are {len(statements)} statements: ask one question at a time")
    for statement in first:
        connection.execute(statement)
    return last


def _bare(sql: str) -> str:
    """One statement without the semicolon that may end it, and what follows that."""
    import duckdb

    data = sql.encode()
    places = (at for at, kind in duckdb.tokenize(sql) if kind == duckdb.token_type.operator)
    return data[: next((at for at in places if data[at : at + 1] == b";"), len(data))].decode()


@contextmanager
def _target(out: str) -> Iterator[str]:
    """What DuckDB writes to: a file that is there whole or not at all, unless `out` leads elsewhere."""
    if not is_local(out):
        yield out
    elif leads_elsewhere(out):
        with _piped(out) as pipe:
            yield pipe
    else:
        with replacing(out) as file:
            yield str(file)


@contextmanager
def _piped(out: str) -> Iterator[str]:
    """A pipe whose bytes go to where `out` leads: DuckDB would open a redirected file anew, and empty it."""
    try:
        stream = open_through(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    read, write = os.pipe()

    def copy() -> None:
        with (
            open(read, "rb") as source,
            stream,
        ):  # closed where the reader of ours has gone: DuckDB's write ends too
            shutil.copyfileobj(source, stream)

    with ThreadPoolExecutor(1) as thread:
        copied = thread.submit(copy)
        try:
            yield f"/dev/fd/{write}"
        finally:
            os.close(write)
            try:
                copied.result()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise UserError(f"cannot write {out}: {error}") from error
