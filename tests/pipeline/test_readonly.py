"""SQL that others wrote: --where, `sql --read-only` and the page read the store alone, and change nothing."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.readonly import conjuncts, question
from macco.pipeline.store import Store
from macco.preprocess.look.sql import query
from macco.preprocess.look.view import write_page
from macco.train.config import MaskConfig
from macco.train.data.index import build
from macco.train.data.selection import Selection
from tests.support.drawn import drawn_store

SECRET = "the words of a file that nobody is to read"

# {out}: a file outside the store, {store}: the store's folder, {secret}: a file beside it.
READS = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM '{secret}.csv'",
    "SELECT * FROM read_text('{store}/../secret.txt')",
    "SELECT * FROM read_json('{store}/samples/../../secret.json')",
    "SELECT * FROM read_json('{store}/leads_out.json')",
    "SELECT * FROM parquet_scan('{secret}.parquet')",
    "SELECT * FROM parquet_metadata('{secret}.parquet')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{store}/../*')",
    "SELECT * FROM read_json('http://127.0.0.1:9/x.json')",
    "SELECT getenv('HOME')",
    "SELECT * FROM secret",  # a variable of Python's that holds a table
    "SELECT * FROM query('SELECT * FROM ''{secret}.csv''')",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "SELECT * FROM samples WHERE EXISTS (SELECT 1 FROM read_text('{secret}') WHERE content LIKE '%words%')",
    "DESCRIBE SELECT * FROM '{secret}.csv'",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM arrow_scan(1, 2, 3)",
]
WRITES = [
    "COPY (SELECT 1) TO '{out}'",
    "COPY (SELECT 1) TO '{store}/out.csv'",
    "WITH x AS (COPY (SELECT 1) TO '{store}/out.csv') SELECT 1",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{store}/out.csv') SELECT 1)",
    "DESCRIBE (WITH x AS (COPY (SELECT 1) TO '{store}/out.csv') SELECT 1)",
    "FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''{store}/out.csv'') SELECT 1'))",
    "WITH x AS (INSERT INTO numbers VALUES (2) RETURNING n) SELECT * FROM x",
    "WITH x AS (UPDATE numbers SET n = 2 RETURNING n) SELECT * FROM x",
    "WITH x AS (DELETE FROM numbers RETURNING n) SELECT * FROM x",
    "ATTACH '{store}/new.db'",
    "ATTACH '{out}'",
    "EXPORT DATABASE '{store}/export'",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE OR REPLACE TEMP VIEW samples AS SELECT 1",
    "DROP VIEW samples",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "PRAGMA version",
    "PRAGMA enable_profiling = 'json'",
    "CALL enable_logging(storage = 'file', storage_path = '{store}/logs')",
    "SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_path = '{store}/logs')",
    "SELECT * FROM checkpoint()",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{out}'",
    "",
    ";",
]
# What would leave the brackets that a condition stands in.
BREAKS = [
    "true) UNION (SELECT 1 WHERE true",
    "true) GROUP BY (1",
    "true) LIMIT (1",
    "true) ORDER BY (1",
    "true); COPY (SELECT 1) TO '{out}'; SELECT (1",
    "true)) TO '{out}'; --",
    "true) --",
    "true /*",
    "1 = 1; SELECT 2",
    "status = 'ok",
]
WHERES = [f"({sql}) IS NULL" for sql in READS if sql.startswith("SELECT")] + BREAKS


def laid_out(folder: Path) -> dict[str, str]:
    """A store, files beside it, and a link that leads out of it."""
    url = drawn_store(folder, shards=1, images=4)
    secret = folder / "secret"
    for ending in ("", ".txt", ".csv", ".json"):
        Path(f"{secret}{ending}").write_text(f'"{SECRET}"\n')
    duckdb.sql(f"COPY (SELECT '{SECRET}' AS words) TO '{secret}.parquet'")
    os.symlink(f"{secret}.json", f"{url}/leads_out.json")
    return {"store": url, "secret": str(secret), "out": str(folder / "out.csv")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For tests that leave it as it was, and make sure of that."""
    return laid_out(tmp_path_factory.mktemp("place"))


def everything(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def unchanged(place: dict[str, str], act: Callable[[], Any]) -> UserError:
    """What an attempt is refused with; nothing was written, and no secret is told."""
    folder = str(Path(place["store"]).parent)
    before = everything(folder)
    with pytest.raises(UserError) as refused:
        act()
    assert everything(folder) == before
    assert SECRET not in str(refused.value)
    return refused.value


@pytest.mark.parametrize("sql", READS + WRITES)
def test_a_question_of_others_reads_the_store_alone_and_writes_nothing(
    sql: str, place: dict[str, str]
) -> None:
    secret = duckdb.sql("SELECT 42 AS n").to_arrow_table()
    assert secret.num_rows
    store = Store.open(place["store"])
    unchanged(place, lambda: query(store, sql.format(**place), read_only=True))


@pytest.mark.parametrize("sql", READS)
def test_files_are_shut_off_even_where_the_text_was_not_looked_at(sql: str, place: dict[str, str]) -> None:
    """The second wall, alone."""
    secret = duckdb.sql("SELECT 42 AS n").to_arrow_table()
    assert secret.num_rows
    with connect(Store.open(place["store"]), sealed=True) as connection:
        if "arrow_scan" in sql:  # reads memory, no file: there is the first wall alone
            return
        try:
            found = str(connection.execute(sql.format(**place)).fetchall())
        except duckdb.Error as error:
            found = str(error)
    assert SECRET not in found
    assert "root:" not in found
    assert "secret.csv'" not in found


@pytest.mark.parametrize("where", WHERES)
def test_a_condition_reads_no_file(where: str, place: dict[str, str]) -> None:
    where, store = where.format(**place), Store.open(place["store"])
    page = Path(store.url).parent / "page.html"
    unchanged(place, lambda: write_page(store, page, where=where, limit=2, threshold=0.3))
    unchanged(place, lambda: build(store, Selection.of(where, MaskConfig()), print))


def test_a_condition_may_be_anything_else(place: dict[str, str], tmp_path: Path) -> None:
    store = Store.open(place["store"])
    for where in (
        "row < 2 -- the first",
        "row IN (0, 1)\n",
        "caption LIKE '%--%' OR row < 2",
        "key ~ '.*[01]$'",
    ):
        assert write_page(store, tmp_path / "p.html", where=where, limit=9, threshold=0.3) == 2
        assert len(build(store, Selection.of(where, MaskConfig()), print)) == 2
    some = "sample_id IN (SELECT sample_id FROM concepts WHERE lemma = 'sofa') AND row = 1"
    assert write_page(store, tmp_path / "p.html", where=some, limit=9, threshold=0.3) == 1


def test_what_reads_is_answered(place: dict[str, str], tmp_path: Path) -> None:
    store, out = Store.open(place["store"]), str(tmp_path / "answer.json")
    for sql in (
        "FROM samples SELECT count(*) AS n",
        "WITH x AS (SELECT * FROM samples) SELECT count(*) AS n FROM x -- of all\n;",
        "SELECT n FROM (VALUES (4)) t(n) UNION SELECT 4",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT max(n) AS n FROM t",
        f"SELECT count(*) AS n FROM read_parquet('{store.url}/samples/00000.parquet')",
        "SELECT count(*) AS n FROM range(4)",
    ):
        query(store, sql, "json", out, read_only=True)
        assert json.loads(Path(out).read_text()) == {"n": 4}, sql


def test_tables_may_be_links(tmp_path: Path) -> None:
    """As in the Hub's cache, where each file is one, or where a table lies on another disk."""
    store = Path(laid_out(tmp_path)["store"])
    (tmp_path / "blobs").mkdir()
    os.rename(store / "boxes", tmp_path / "other disk")
    os.symlink(tmp_path / "other disk", store / "boxes")
    for path in (store / "samples").iterdir():
        os.rename(path, tmp_path / "blobs" / path.name)
        os.symlink(tmp_path / "blobs" / path.name, path)
    with connect(Store.open(str(store)), sealed=True) as connection:
        assert connection.execute("SELECT count(*) FROM samples JOIN boxes USING (sample_id)").fetchone() == (
            12,
        )


def test_a_store_that_is_no_folder_is_sealed_too(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    local = drawn_store(tmp_path, shards=1, images=4)
    memory.put(local, f"/{tmp_path.name}/store", recursive=True)
    memory.pipe_file(f"/{tmp_path.name}/secret.csv", SECRET.encode())
    store = Store.open(f"memory://{tmp_path.name}/store")
    with connect(store, sealed=True) as connection:
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (4,)
        for path in (f"memory://{tmp_path.name}/secret.csv", f"{local}/store.json"):
            with pytest.raises(duckdb.Error, match="Permission"):
                connection.execute(f"FROM read_csv('{path}')")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_text_is_a_condition_or_refused(text: str) -> None:
    try:
        parts = conjuncts(text)
    except UserError:
        return
    again = [part for one in parts for part in conjuncts(one)]
    assert again == parts


@settings(deadline=None)
@given(st.text(max_size=30))
def test_text_is_a_question_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        assert question(text) == text


def test_brackets_of_any_depth_are_answered() -> None:
    assert len(conjuncts("(" * 150 + "key = '('" + ")" * 150)) == 1
    for where in ("(" * 30_000 + "true", "(" * 30_000 + "true" + ")" * 30_000):
        with pytest.raises(UserError, match="brackets within brackets"):
            conjuncts(where)
