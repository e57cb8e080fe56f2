"""No part of a path is a pattern, a partition or SQL: whatever its folders are called, a store is the same."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.pipeline.cache import CACHED, ImageCache
from macco.pipeline.query import connect, dicts
from macco.pipeline.store import Store
from macco.pipeline.urls import expand
from macco.pipeline.views import VIEWS
from macco.preprocess.exchange.compact import compact
from macco.preprocess.look.score import score
from macco.preprocess.look.sql import query
from macco.preprocess.look.stats import stats
from macco.preprocess.look.status import status
from macco.train.config import DataConfig, MaskConfig
from macco.train.data.index import build
from macco.train.data.negatives import write_negatives
from macco.train.data.rows import Fetch
from macco.train.data.selection import Selection
from tests.support.rows import record, tables

# Columns of the tables, too: a partition of the same name would take their place.
PLACES = (
    "plain", "shard=7", "dataset=laion", "row=9", "status=bad", "key=5", "run=x/shard=1", "run[1]", "[0-9]", "a*b",
    "**", "q?", "it's", 'say "x"', "a b", "100%", "%20", "{x}", "{0..3}", "~x", "~", "$root", "-- x", "a;b", "é",
    "a::b", "#1", "new\nline", "_x", ".hidden",
)  # fmt: skip
DECOYS = ("run1", "axb", "a/b", "5", "qz")  # what some of these would match, read as patterns
places = pytest.mark.parametrize("place", PLACES)
REMOTE = tuple(
    place for place in PLACES if not set(place) & set("\n#?") and "::" not in place and ".." not in place
)


def filled(url: str, caption: str = "a dog") -> Store:
    store = Store.create(url, {})
    for shard in ("00000", "a[1]", "b=2", "c*"):  # shards have the names of files
        store.commit(shard, tables(shard, [caption, "a cat"], boxes=2), record(shard, samples=2))
    uncommitted = store.path("samples/zzz.parquet")
    with store.fs.open(uncommitted, "wb") as file:
        pq.write_table(tables("zzz", ["never"])["samples"], file)
    store.fs.pipe_file(store.path("samples/.tmp-1-d.parquet"), b"half")
    return store


def read(store: Store) -> dict[str, list[dict[str, Any]]]:
    connection = connect(store)
    rows = {view: dicts(connection.execute(f"SELECT * FROM {view} ORDER BY ALL")) for view in VIEWS}
    for row in rows["shards"]:
        row.pop("input")
    return rows


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    rows = read(filled(str(tmp_path_factory.mktemp("x") / "store")))
    assert len(rows["samples"]) == 8
    return rows


@pytest.fixture(scope="module")
def decoy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(filled(str(tmp_path_factory.mktemp("decoy") / "store"), "a decoy").url)


@pytest.fixture
def beside_decoys(decoy: Path, tmp_path: Path) -> None:
    for place in DECOYS:
        shutil.copytree(decoy, tmp_path / place / "store")


@places
@pytest.mark.usefixtures("beside_decoys")
def test_every_view_is_the_same(place: str, tmp_path: Path, expected: dict[str, Any]) -> None:
    store = filled(str(tmp_path / place / "store"))
    assert read(store) == expected
    assert read(compact(store, str(tmp_path / place / "small"))) == expected
    assert status(store)["samples"] == {"ok": 8}
    assert stats(store, threshold=0.5)["boxes"][0]["objects"] == 8
    out = tmp_path / place / "out" / "rows.csv"
    query(store, "SELECT DISTINCT shard FROM samples ORDER BY 1", "csv", str(out))
    assert out.read_text().split() == ["shard", "00000", "a[1]", "b=2", "c*"]


@pytest.fixture(scope="module")
def remote() -> Iterator[str]:
    """A folder in memory, with decoys."""
    for decoy in DECOYS:
        filled(f"memory://paths/{decoy}/store", "a decoy")
    yield "memory://paths"
    fsspec.filesystem("memory").rm("/paths", recursive=True)


@pytest.mark.parametrize("place", REMOTE)
def test_every_view_of_a_remote_store_is_the_same(place: str, expected: dict[str, Any], remote: str) -> None:
    assert read(filled(f"{remote}/{place}/store")) == expected


def trained_on(root: Path) -> list[Any]:
    """What training reads of a store at `root`, with negatives and a cache."""
    store = filled(str(root / "store"))
    write_negatives(store, 0, lambda line: None)
    cache = ImageCache.create(str(root / "cache"), {})
    for shard in store.committed():
        entry = pa.table(
            [[shard], ["0000"], [f"{shard}.tar"], pa.array([None], pa.int64()), [0], [3]], CACHED
        )
        cache.commit(shard, b"abc", entry)
    selection = Selection.of("score > 0.1", MaskConfig(box_score=0))
    index = build(store, selection, lambda line: None)
    data = DataConfig(store=str(root / "store"), cache=str(root / "cache"))
    fetched = Fetch(data, index, selection, 4, 0.0)(range(len(index.starts) - 1), 0, 0)
    return [
        (
            s.id,
            s.caption,
            s.source.removeprefix(str(root)),
            s.negatives,
            len(s.concepts),
            s.regions.tolist(),
        )
        for s in (fetched[slot] for slot in range(len(index)))
    ]


@pytest.fixture(scope="module")
def trained_on_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    rows = trained_on(tmp_path_factory.mktemp("other"))
    assert len(rows) == 8
    assert any(source.startswith("/cache/") for _, _, source, *_ in rows)
    return rows


@places
@pytest.mark.usefixtures("beside_decoys")
def test_training_reads_the_same_rows(place: str, tmp_path: Path, trained_on_elsewhere: list[Any]) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    assert trained_on(tmp_path / place) == trained_on_elsewhere


@places
def test_truth_is_found(place: str, tmp_path: Path) -> None:
    truth = tmp_path / place / "truth"
    store = filled(str(tmp_path / "store"))
    for name in ("concepts", "boxes"):
        (truth / name).mkdir(parents=True)
        parts = [store.table(name, shard) for shard in sorted(store.committed())]
        pq.write_table(pa.concat_tables(parts), truth / name / "all.parquet")
    assert score(store, str(truth))["spans"].f1 == 1


@places
@pytest.mark.parametrize("way", ["absolute", "inside"])
def test_files_below_such_a_folder_are_named_or_matched(
    place: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (*DECOYS, place):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in ("00000.tar", "00001.tar", "x[1].tar", "x1.tar", "{a}.tar"):
            (tmp_path / folder / name).write_bytes(b"")
    if way == "inside":
        monkeypatch.chdir(tmp_path / place)
    start = "" if way == "inside" else f"{tmp_path / place}/"
    meant = {
        "00000.tar": ["00000.tar"],
        "x[1].tar": ["x[1].tar"],
        "{a}.tar": ["{a}.tar"],
        "0*.tar": ["00000.tar", "00001.tar"],
        "{00000..00001}.tar": ["00000.tar", "00001.tar"],
        "{00001,x1}.tar": ["00001.tar", "x1.tar"],
        "x[12].tar": ["x1.tar"],
    }
    for pattern, names in meant.items():
        assert expand([start + pattern]) == [str(tmp_path / place / name) for name in names]


@pytest.mark.parametrize("url", ["~x/store", "a::b", "./~", "shard=1"])
def test_a_relative_path_is_one_from_here(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = filled(url)
    assert store.url == os.path.join(tmp_path, url.removeprefix("./"))
    assert len(read(store)["samples"]) == 8


def test_views_follow_a_store_that_has_moved(tmp_path: Path) -> None:
    filled(str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "it's [new]")
    moved = str(tmp_path / "it's [new]")
    assert len(read(Store.open(moved))["samples"]) == 8
    command = [sys.executable, "-m", "macco.preprocess", "sql", moved, "--write-views"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    import duckdb

    with duckdb.connect() as connection:
        connection.execute((Path(moved) / "views.sql").read_text())
        assert connection.execute("SELECT count(*) FROM samples").fetchall() == [(8,)]


APPENDED = {
    "append": ("{command} >> f", "first\n{rows}"),
    "shared": ("{{ echo one; {command}; echo two; }} > f", "one\n{rows}two\n"),
    "append to /dev/stdout": ("{command} --out /dev/stdout >> f", "first\n{rows}"),
    "append to a descriptor": ("{command} --out /dev/fd/3 3>> f", "first\n{rows}"),
    "pipe": ("{command} | cat >> f", "first\n{rows}"),
    "file": ("{command} --out f", "{rows}"),
    "a reader that leaves": ("{command} | head -n 1 >> f", "first\n{rows}"),
}


@pytest.mark.parametrize(
    ("way", "format", "rows"),
    [
        *((way, "csv", "a\n1\n") for way in APPENDED),
        ("append", "json", '{"a":1}\n'),
        ("file", "json", '{"a":1}\n'),
    ],
)
def test_output_goes_to_the_stream(way: str, format: str, rows: str, tmp_path: Path) -> None:
    filled(str(tmp_path / "s"))
    (tmp_path / "f").write_text("first\n")
    command = f'{sys.executable} -m macco.preprocess sql s "SELECT 1 AS a" --format {format}'
    line, found = APPENDED[way]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(["bash", "-c", line.format(command=command)], cwd=tmp_path, check=True, env=environment)
    if "leaves" in way:
        rows = rows.splitlines(keepends=True)[0]
    assert (tmp_path / "f").read_text() == found.format(rows=rows)


STATEMENTS = {
    "SELECT 1 AS a -- why": "a\n1\n",
    "SELECT 1 AS a;": "a\n1\n",
    "SELECT 1 AS a;\n-- why\n": "a\n1\n",
    "SELECT 1 AS a /* ; */ ; ;": "a\n1\n",
    "SELECT 'é;' AS a; -- ;": "a\né;\n",
    "-- first\nSELECT 1 AS a": "a\n1\n",
    "SET threads = 1; SELECT 1 AS a": "a\n1\n",
    "CREATE TEMP TABLE t AS SELECT 1 AS a; FROM t": "a\n1\n",
    "DESCRIBE SELECT 1 AS a": "column_name,column_type,null,key,default,extra\na,INTEGER,YES,,,\n",
    "PIVOT (SELECT 1 AS a) ON a USING count(*)": "1\n1\n",
    "SELECT row AS a FROM samples ORDER BY a DESC LIMIT 2 --": "a\n1\n1\n",
}
REFUSED = {
    "": "holds no statement",
    "-- nothing": "holds no statement",
    ";;": "holds no statement",
    "SELECT 1; SELECT 2": "one question at a time",
    "SELECT 1; -- a\nSELECT 2;": "one question at a time",
    "EXPLAIN SELECT 1": "is for a SELECT",
    "SELECT nope FROM samples": "nope",
    "SELECT error('late')": "late",
    "SELEC 1": "syntax error",
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that is only read."""
    return filled(str(tmp_path_factory.mktemp("asked") / "s"))


@pytest.mark.parametrize("sql", STATEMENTS)
def test_a_statement_may_end_as_it_likes(
    sql: str, asked: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    query(asked, sql, "csv")
    assert capfd.readouterr().out == STATEMENTS[sql]
    query(asked, sql, "csv", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == STATEMENTS[sql]
    query(asked, sql)
    assert "│" in capfd.readouterr().out


@pytest.mark.parametrize("sql", REFUSED)
def test_what_cannot_be_asked_is_said_in_a_line(
    sql: str, asked: Store, refused: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = refused(query, asked, sql, "csv")
    assert REFUSED[sql] in said
    assert "COPY" not in said
    assert capfd.readouterr().out == ""


@pytest.fixture
def refused() -> Callable[..., str]:
    from macco.pipeline.errors import UserError

    def call(function: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(UserError) as caught:
            function(*arguments)
        return str(caught.value)

    return call
