import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.folder import new_folder, put_file
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.query import connect
from macco.pipeline.schema import NEGATIVE_ROWS, NEGATIVES, TABLES, sample_id
from macco.pipeline.shards import DECIDED
from macco.pipeline.store import Store
from macco.pipeline.views import VIEWS
from macco.preprocess.exchange.compact import compact
from macco.preprocess.look.sql import query
from tests.support.rows import record, tables

SETTINGS = {"parser": "p", "box_threshold": 0.1}


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "file" else f"memory://{tmp_path.name}/store"


def count(store: Store, view: str) -> int:
    return connect(store).execute(f"SELECT count(*) FROM {view}").fetchall()[0][0]


def test_an_empty_store_answers_every_view(url: str) -> None:
    store = Store.create(url, SETTINGS)
    assert {view: count(store, view) for view in VIEWS} == dict.fromkeys(VIEWS, 0)


def test_rows_come_back_as_they_went_in(url: str) -> None:
    store = Store.create(url, SETTINGS)
    rows = tables("00000", ["a dog", "a cat"])
    store.commit("00000", rows, record("00000", samples=2))
    assert {name: store.table(name, "00000") for name in TABLES} == rows
    assert connect(store).execute("SELECT samples FROM shards").fetchall() == [(2,)]
    assert store.committed() == {"00000"}


def test_only_committed_shards_are_visible(url: str) -> None:
    store = Store.create(url, SETTINGS)
    for name in ("a", "b"):
        store.commit(name, tables(name, ["a dog"]), record(name))
    store.fs.rm_file(store.path("shards/b.json"))
    assert store.committed() == {"a"}
    assert count(store, "samples") == count(store, "boxes") == 1


@pytest.mark.parametrize("step", range(8))
def test_a_kill_between_any_two_writes_leaves_all_or_nothing(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First commit of a shard, then a second one with other rows, stopped after `step` changes of files."""
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    store.commit("a", tables("a", ["a dog"]), record("a"))
    left = step

    class KilledError(BaseException):
        pass

    def dying(change):  # type: ignore[no-untyped-def]
        def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal left
            if left == 0:
                raise KilledError
            left -= 1
            return change(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(store, "put", dying(store.put))
    monkeypatch.setattr(store, "remove", dying(store.remove))
    with contextlib.suppress(KilledError):
        store.commit("a", tables("a", ["a cat", "a hat"]), record("a"))
    texts = {row[0] for row in connect(store).execute("SELECT text FROM concepts").fetchall()}
    captions = {row[0] for row in connect(store).execute("SELECT caption FROM samples").fetchall()}
    assert texts == captions
    assert texts in (set(), {"a dog"}, {"a cat", "a hat"})


@pytest.mark.processes
def test_a_write_that_dies_leaves_the_old_file_and_its_rubbish_is_swept(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    store = Store.create(url, SETTINGS)
    before = Path(url, "store.json").read_bytes()
    # A child that is killed after writing half of a file, before the rename.
    child = (
        "import os, sys, macco.pipeline.folder as f\n"
        "os.replace = lambda *a: os.kill(os.getpid(), 9)\n"
        "import fsspec\n"
        "f.put(fsspec.filesystem('file'), sys.argv[1], b'half')\n"
    )
    done = subprocess.run([sys.executable, "-c", child, f"{url}/store.json"], check=False)
    assert done.returncode == -9
    assert Path(url, "store.json").read_bytes() == before
    assert any(name.startswith(".tmp-") for name in os.listdir(url))
    assert not [name for name in os.listdir(url) if name.startswith(".tmp-") and name.endswith(".json")]
    del store._lock
    Store.create(url, SETTINGS)
    assert not any(name.startswith(".tmp-") for name in os.listdir(url))


def test_other_settings_are_refused_by_name(url: str) -> None:
    Store.create(url, SETTINGS)._lock = None
    with pytest.raises(UserError, match=r"box_threshold = 0\.1, not 0\.2"):
        Store.create(url, SETTINGS | {"box_threshold": 0.2})
    with pytest.raises(UserError, match="detector = None, not 'x'"):
        Store.create(url, SETTINGS | {"detector": "x"})


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    first = Store.create(url, SETTINGS)
    with pytest.raises(UserError, match="another macco-prep"):
        Store.create(url, SETTINGS)
    assert first.committed() == set()


def test_what_is_no_store_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a concept store"):
        Store.open(str(tmp_path))
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="other things in it"):
        Store.create(str(tmp_path), SETTINGS)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot"):
        Store.create(str(tmp_path / "file"), SETTINGS)


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    Store.create(url, SETTINGS)
    Path(url, "store.json").write_text(json.dumps({"schema_version": 0, "settings": {}}))
    with pytest.raises(UserError, match="schema version 0"):
        Store.open(url)
    Path(url, "store.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        Store.open(url)


def wrong(shard: str, *captions: str) -> pa.Table:
    """Negatives of the first rows of `tables(shard, ...)`."""
    names = [sample_id("d", shard, f"{row:04}", 0) for row in range(len(captions))]
    return pa.table([names, ["swap_object"] * len(captions), captions], schema=NEGATIVE_ROWS)


def test_negatives_come_and_go_with_their_rows(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    store = Store.create(url, SETTINGS)

    def negatives() -> dict[str, list[str]]:
        names = store.names(".parquet", NEGATIVES)
        return {
            n: pq.read_table(store.path(f"{NEGATIVES}/{n}.parquet"))["caption"].to_pylist() for n in names
        }

    for shard in ("a", "b", "c"):
        store.commit(shard, tables(shard, ["a dog"]) | {NEGATIVES: wrong(shard, "a cat")}, record(shard))
    assert negatives() == {"a": ["a cat"], "b": ["a cat"], "c": ["a cat"]}
    store.commit("a", tables("a", ["a dog"]), record("a"))
    assert negatives().keys() == {"b", "c"}
    store.stage("a", tables("a", ["a cow"]) | {NEGATIVES: wrong("a", "a pig")}, record("a"))
    store.stage("b", tables("b", ["a cow"]), record("b"))
    assert negatives() == {"b": ["a cat"], "c": ["a cat"]}
    store.replace(["a", "b"], ["c"])
    assert negatives() == {"a": ["a pig"]}
    store.close()
    copy = compact(Store.open(url), str(tmp_path / "compact"))
    assert copy.names(".parquet", NEGATIVES) == {"a"}


def test_negatives_survive_a_replacement_that_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change of a file of a replacement is made, and the process killed before the next one."""
    for changes in range(8):
        url = str(tmp_path / f"store{changes}")
        store = Store.create(url, SETTINGS)
        store.commit("a", tables("a", ["a dog"]) | {NEGATIVES: wrong("a", "a cat")}, record("a"))
        store.stage("a", tables("a", ["a cow"]) | {NEGATIVES: wrong("a", "a pig")}, record("a"))
        left = iter(range(changes))

        def dying(change, left=left):  # type: ignore[no-untyped-def]
            def wrapped(*args):  # type: ignore[no-untyped-def]
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return change(*args)

            return wrapped

        with contextlib.suppress(KeyboardInterrupt):
            store.put(DECIDED, b'{"shards": ["a"], "gone": []}')
            for name in ("put", "remove", "_move"):
                monkeypatch.setattr(store, name, dying(getattr(store, name)))
            store.finish()
        store.close()
        again = Store.open(url)
        assert again.table("samples", "a")["caption"].to_pylist() == ["a cow"]
        assert pq.read_table(again.path(f"{NEGATIVES}/a.parquet"))["caption"].to_pylist() == ["a pig"]


def test_a_full_disk_is_one_line_and_hides_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        store.commit("a", tables("a", ["a dog"]), record("a"))
    assert store.committed() == set()


def test_a_relation_has_the_boxes_of_its_subject_and_object(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "it's a store"), SETTINGS)  # the quote: the views name the path
    rows = tables("a", ["dog", "cat"])
    first, second = rows["concepts"].to_pylist()
    extra = [
        first
        | {
            "concept_id": "r",
            "kind": "relation",
            "subject_id": first["concept_id"],
            "object_id": second["concept_id"],
        },
        first | {"concept_id": "q", "kind": "attribute", "owner_id": second["concept_id"]},
    ]
    rows["concepts"] = pa.Table.from_pylist([first, second, *extra], schema=TABLES["concepts"])
    store.commit("a", rows, record("a"))
    found = connect(store).execute("SELECT concept_id, role, object_concept_id FROM concept_boxes").fetchall()
    one, two = first["concept_id"], second["concept_id"]
    expected = {
        (one, "self", one),
        (two, "self", two),
        ("q", "owner", two),
        ("r", "subject", one),
        ("r", "object", two),
    }
    assert set(found) == expected


def test_query_formats(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    store.commit("a", tables("a", ["a dog"]), record("a"))
    query(store, "SELECT caption, row FROM samples;", "csv")
    assert capfd.readouterr().out == "caption,row\na dog,0\n"
    query(store, "SELECT caption, row FROM samples", "json")
    assert json.loads(capfd.readouterr().out) == {"caption": "a dog", "row": 0}
    query(store, "SELECT caption FROM samples")
    assert "a dog" in capfd.readouterr().out
    query(store, "SELECT caption FROM samples", "parquet", str(tmp_path / "x.parquet"))
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"caption": "a dog"}]
    for wrong, message in (("SELEC 1", "syntax error"), ("SELECT nope FROM samples", "nope")):
        with pytest.raises(UserError, match=message):
            query(store, wrong)
    with pytest.raises(UserError, match="needs --out"):
        query(store, "SELECT 1", "parquet")


def test_an_output_is_whole_or_not_there_and_links_stay_links(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    query(store, "SELECT 1 AS one", "csv", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "one\n1\n"
    put_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    query(store, "SELECT 1 AS one", "csv", str(tmp_path / "out" / "x.csv.gz"))
    assert gzip.decompress((tmp_path / "out" / "x.csv.gz").read_bytes()) == b"one\n1\n"
    before = sorted(tmp_path.rglob("*"))
    wrong = "SELECT CASE WHEN range = 99999 THEN error('late') ELSE 1 END FROM range(100000)"
    with pytest.raises(UserError, match="late"):
        query(store, wrong, "csv", str(tmp_path / "out" / "new.csv"))
    with contextlib.suppress(KeyError), new_folder(tmp_path / "folder") as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="not empty"), new_folder(tmp_path / "out"):
        pass
    with new_folder(tmp_path / "folder") as folder:
        (folder / "all").write_text("x")
        assert not (tmp_path / "folder").exists()
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["all"]


def test_box_iou_in_sql(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    rows = (
        connect(store)
        .execute("SELECT box_iou(0, 0, 2, 2, 1, 1, 3, 3), box_iou(0, 0, 1, 1, 2, 2, 3, 3)")
        .fetchall()
    )
    assert rows == [(pytest.approx(1 / 7), 0)]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_text_survives_parquet_and_equal_rows_are_equal_bytes(captions: list[str]) -> None:
    captions = [caption.encode("utf-8", "ignore").decode() for caption in captions]
    rows = tables("s", captions)
    for name, schema in TABLES.items():
        data = parquet_bytes(schema, rows[name])
        assert pq.read_table(io.BytesIO(data), schema=schema) == rows[name]
        assert parquet_bytes(schema, rows[name]) == data


def rows_of(store: Store) -> dict[str, list[Any]]:
    return {view: connect(store).execute(f"SELECT * FROM {view} ORDER BY ALL").fetchall() for view in VIEWS}


def test_compact_keeps_every_row_in_fewer_files(url: str) -> None:
    store = Store.create(url, SETTINGS)
    for name in "abcde":
        store.commit(name, tables(name, [f"{name} dog", "a cat"]), record(name))
    store.close()
    small = compact(store, url + "-compact")
    assert rows_of(small) == rows_of(store)
    assert all(small.table(view, name) == store.table(view, name) for name in "abcde" for view in TABLES)
    assert len(small.names(".parquet", "samples")) == 1 + 1  # and the one without rows
    with pytest.raises(UserError, match="choose a new"):
        compact(store, url + "-compact")
    before = rows_of(store)
    compact(store)
    assert rows_of(store) == before
    assert store.names(".json", "shards") == {"_schema"}
    assert len(store.names(".parquet", "samples")) == 1 + 1
    assert store.records().keys() == {*"abcde"}
    own = Store.create(url, SETTINGS)  # and it goes on
    own.commit("f", tables("f", ["a fox"]), record("f"))
    assert own.committed() == {*"abcdef"}
