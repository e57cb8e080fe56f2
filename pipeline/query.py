"""DuckDB over a store: a connection, and rows by column name."""

import tempfile
from collections.abc import Collection
from typing import Any, Final

import duckdb
import pyarrow as pa

from macco.pipeline.commits import PACKS, Commits
from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.groundings import all_boxes_sql, boxes_sql
from macco.pipeline.readonly import seal
from macco.pipeline.schema import TABLES, TEXTS
from macco.pipeline.store import Store
from macco.pipeline.tags import unreadable, view_sql
from macco.pipeline.views import (
    MACROS,
    TABLE_MACROS,
    VIEWS,
    literal,
    made_of,
    shards_sql,
    text_files,
    view_files,
    views,
    words,
)

_ALL: Final = (*VIEWS, *MACROS, *TABLE_MACROS)


def connect(
    store: Store,
    *,
    views: bool | Collection[str] = True,
    memory: str | None = None,
    threads: int | None = None,
    commits: Commits | None = None,
    sealed: bool = False,
    beside: Folder | None = None,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection, in memory, that can read the store's files and has its views.

    views: all, none, or those of these names and what they are made of. Each costs a look into the files that it reads.
    commits: what is committed, for those who know it already.
    memory: at most so much ("2GB"); more goes to a temporary folder, and rows come in no order of their own.
    sealed: it reaches no file outside the store, but for those in `beside`; what it is asked may come from anyone.
    """
    connection = duckdb.connect(config={"temp_directory": tempfile.gettempdir()})
    # A progress bar would be printed among the rows; in a notebook without ipywidgets it is off, and may not be named.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("SET enable_progress_bar = false")
    if not store.local:
        connection.register_filesystem(store.fs)
    if memory is not None:
        connection.execute(f"SET memory_limit = '{memory}'; SET preserve_insertion_order = false")
    if threads is not None:
        connection.execute(f"SET threads = {threads}")
    if views:
        _make_views(connection, store, commits or store.commits(), _ALL if views is True else views)
    try:
        connection.execute(view_sql(store))
    except duckdb.Error as error:
        raise UserError(unreadable(store, reason(error))) from error
    if sealed:
        seal(connection, store, *([beside] if beside is not None else []))
    return connection


def _make_views(
    connection: duckdb.DuckDBPyConnection, store: Store, commits: Commits, names: Collection[str]
) -> None:
    """The views over what is committed now, by the names of its files: what else lies in the folders is not read."""
    names = made_of(names)
    files = sorted(commits.core["file"].unique().to_pylist())
    loose = commits.loose()
    connection.register("committed", commits.core)
    # As every record was made by Python, its JSON is text that DuckDB reads.
    connection.register("loose", loose)
    for name, schema in TABLES.items():
        connection.register(f"no_{name}", schema.empty_table())
        connection.execute(f"SET VARIABLE {name}_files = ?", [view_files(store.url, files, name)])
    packs = [literal(f"{store.url}/{PACKS}/{name}.parquet") for name in commits.packs]
    try:
        if "shards" in names:
            connection.execute(shards_sql("loose", packs))
        denied = store.description()["schema_version"] > 1
        texts = [name for name in TEXTS if name in names and store.names(".parquet", name)]
        for name in texts:
            connection.execute(f"SET VARIABLE {name}_files = ?", [text_files(store.url, name)])
        partly = bool(commits.partly)
        connection.execute(views(names, partly=partly, denied=denied, empty=not files, texts=texts))
        _choose_boxes(connection, store, commits, names)
    except duckdb.Error as error:
        raise UserError(f"cannot read the tables of {store.url}: {reason(error)}") from error


def _choose_boxes(
    connection: duckdb.DuckDBPyConnection, store: Store, commits: Commits, names: Collection[str]
) -> None:
    """The view `all_boxes`, and in place of `boxes` those that were chosen."""
    if "boxes" not in names:
        return

    def shards(name: str) -> list[str]:
        return sorted(store.grounded(name) & {*commits.shards})

    own = "boxes"
    if store.boxes_of is not None:
        own = "own_boxes"
        connection.execute("ALTER VIEW boxes RENAME TO own_boxes")
        chosen = boxes_sql(store.url, store.boxes_of, shards(store.boxes_of))
        connection.execute(f"CREATE TEMP VIEW boxes AS SELECT * FROM {chosen}")
    if "all_boxes" in names:
        sets = {name: shards(name) for name in store.groundings()}
        connection.execute(all_boxes_sql(store.url, store.detector, sets, own))


def reason(error: duckdb.Error) -> str:
    """What DuckDB says in one line, without the statement, which may not be the user's own."""
    return " ".join(str(error).partition("\n\nLINE ")[0].split())


def dicts(cursor: duckdb.DuckDBPyConnection, count: int | None = None) -> list[dict[str, Any]]:
    """The rows of an executed statement by column name: all, or the next `count`."""
    names = [column[0] for column in cursor.description or ()]
    rows = cursor.fetchall() if count is None else cursor.fetchmany(count)
    return [dict(zip(names, row, strict=True)) for row in rows]


def query(store: Store, sql: str) -> pa.Table:
    """The rows of one SQL statement on the store's views and macros, which docs/sql.md lists.

    Raises UserError for a mistake in the statement.
    """
    named = words(sql) & {*_ALL}
    with connect(store, views=named or True) as connection:  # of none is asked what there is
        try:
            found = connection.sql(sql)
            return pa.table({}) if found is None else found.to_arrow_table()  # None: a statement without rows
        except duckdb.Error as error:
            raise UserError(f"DuckDB: {error}") from error
