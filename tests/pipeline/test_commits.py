"""What is committed, whatever happens: a model of a store, held against it after every step and every kill."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.merge import copy, merge
from macco.pipeline.query import connect
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.pipeline.views import VIEWS
from macco.preprocess.exchange.compact import compact
from macco.preprocess.look.sql import query
from macco.preprocess.look.status import status
from macco.preprocess.look.verify import verify
from tests.support.examples import examples
from tests.support.rows import record, tables

SETTINGS = {"parser": "p", "box_threshold": 0.1}
NAMES = ("a", "b", "c..d", "it's [*]", "~x", "e")


class KilledError(BaseException):
    """Nothing of ours catches it."""


@contextlib.contextmanager
def killed_after(store: Store, changes: int | None) -> Iterator[None]:
    """Die instead of the change of a file that comes after so many; None: live."""
    left = changes

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left is not None:
                if left == 0:
                    raise KilledError
                left -= 1
            return change(*args, **kwargs)

        return wrapped

    for name in ("put", "remove", "writing"):
        setattr(store, name, dying(getattr(store, name)))
    try:
        with contextlib.suppress(KilledError):
            yield
    finally:
        for name in ("put", "remove", "writing"):
            delattr(store, name)


def captions(store: Store) -> dict[str, list[str]]:
    """What SQL, and what the tables, say of each shard."""
    with connect(store, views=(*TABLES, "shards")) as connection:
        rows = connection.execute(
            "SELECT shard, list(caption ORDER BY row), (SELECT list(text ORDER BY sample_id) FROM concepts c "
            "WHERE c.shard = s.shard), (SELECT count(*) FROM boxes b WHERE b.shard = s.shard) FROM samples s GROUP BY 1"
        ).fetchall()
        recorded = dict(connection.execute("SELECT shard, samples FROM shards").fetchall())
    found = {shard: said for shard, said, *_ in rows}
    assert all(said == texts and len(said) == boxes for _, said, texts, boxes in rows)
    assert recorded == {shard: len(said) for shard, said in found.items()}
    assert store.committed() == found.keys() == store.records().keys()
    assert all(store.table("samples", shard)["caption"].to_pylist() == said for shard, said in found.items())
    return found


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "commit", "replace", "gone", "merge", "drop"]),
        st.sampled_from(NAMES),
        st.integers(1, 3),
        st.none() | st.integers(0, 12),
    ),
    max_size=9,
)


@pytest.mark.slow
@examples(8, 200)
@given(_STEPS)
def test_after_any_steps_and_kills_a_shard_is_as_it_was_or_as_it_was_to_be(steps: list[Any]) -> None:
    folder = tempfile.mkdtemp()
    try:
        store, model = Store.create(f"{folder}/store", SETTINGS), dict[str, list[str]]()
        for number, (what, name, rows, kill) in enumerate(steps):
            said = [f"{name} {number} {row}" for row in range(rows)]
            after = dict(model)
            if what in ("commit", "replace"):
                after[name] = said
            elif what in ("gone", "drop"):
                after.pop(name, None)
            with killed_after(store, kill):
                if what == "commit":
                    store.commit(name, tables(name, said), record(name))
                elif what == "replace":
                    store.stage(name, tables(name, said), record(name))
                    store.replace([name])
                elif what == "gone":
                    store.replace([], [name])
                elif what == "drop":
                    store.drop([name])
                else:
                    merge(store, everything=True)
            store.close()
            store = Store.create(f"{folder}/store", SETTINGS)
            for left in store.staged():
                store.unstage(left)
            store.sweep_tables()
            found = captions(store)
            assert found in ((after,) if kill is None else (model, after))
            assert not store.commits().damaged
            assert not verify(store)["not whole"]
            model = found
        merge(store, everything=True)
        assert captions(store) == model
        left = {path.partition("/")[2] for path in store.commits().foreign}
        assert left <= {
            f"{name}.parquet" for name in {*NAMES} - model.keys()
        }  # to be overwritten by their next commit
        assert compact(store, f"{folder}/copy").committed() == model.keys()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("step", range(14))
def test_a_copy_that_is_killed_is_no_store_and_is_begun_anew(tmp_path: Path, step: int) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    for name in NAMES:
        store.commit(name, tables(name, [name]), record(name))
    made = Store.copy(str(tmp_path / "copy"))
    with killed_after(made, step):
        copy(store, made)
        made.finish_copy(SETTINGS)
        raise KilledError
    made.close()
    if (tmp_path / "copy" / "store.json").exists():
        with pytest.raises(UserError, match="choose a new"):  # it is whole: nothing of it goes
            compact(store, str(tmp_path / "copy"))
        assert captions(Store.open(str(tmp_path / "copy"))) == captions(store)
        return
    with pytest.raises(UserError, match="not a concept store"):
        Store.open(str(tmp_path / "copy"))
    with pytest.raises(UserError, match="cut short"):
        Store.create(str(tmp_path / "copy"), SETTINGS)
    assert captions(compact(store, str(tmp_path / "copy"))) == captions(store)


def _of(store: Store, table: str = "samples") -> Path:
    return next(Path(store.url, table).glob("[a-z]*.parquet"))


DAMAGES: dict[str, Callable[[Store], Any]] = {
    "cut short": lambda store: _of(store).write_bytes(_of(store).read_bytes()[:-20]),
    "empty": lambda store: _of(store, "boxes").write_bytes(b""),
    "missing": lambda store: _of(store, "concepts").unlink(),
    "no folder": lambda store: shutil.rmtree(Path(store.url, "samples")),
    "another's": lambda store: _of(store).write_bytes(
        Path(store.url, "concepts/_schema.parquet").read_bytes()
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_named_left_out_and_done_again(
    tmp_path: Path, damage: str, packed: bool
) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    for name in ("a", "b"):
        store.commit(name, tables(name, [name]), record(name))
    if packed:
        merge(store, everything=True)
    store.commit("c", tables("c", ["c"]), record("c"))
    before = store.commits().files
    DAMAGES[damage](store)
    damaged = store.commits().damaged
    assert damaged
    assert damaged.keys() | store.committed() == before.keys()
    assert all(".parquet" in why for why in damaged.values())
    assert captions(store).keys() == before.keys() - damaged.keys()  # it goes on with the rest
    assert status(store)["shards"]["not whole"] == damaged
    assert verify(store)["not whole"].keys() == damaged.keys()
    with pytest.raises(UserError, match=r"not whole .*\.parquet"):
        store.require_whole()
    with pytest.raises(UserError, match="not whole"):
        compact(store, str(tmp_path / "copy"))
    store.close()
    store = Store.create(store.url, SETTINGS)
    for name in damaged:
        store.commit(name, tables(name, [name]), record(name))
    store.require_whole()
    assert captions(store) == {name: [name] for name in "abc"}
    merge(store, everything=True)
    assert captions(store) == {name: [name] for name in "abc"}


def test_what_only_reading_shows_is_found_by_verify(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    for name in ("a", "b"):
        store.commit(name, tables(name, ["same"]), record(name))
    files = {name: Path(store.url, "concepts", f"{name}.parquet") for name in "ab"}
    assert files["a"].stat().st_size == files["b"].stat().st_size
    shutil.copy(files["a"], files["b"])  # of the same size
    assert verify(store)["not whole"] == {"b": "concepts/b.parquet has rows of shard a"}
    store.drop(["b"])
    assert verify(store)["not whole"] == {}
    assert captions(store) == {"a": ["same"]}


def test_files_of_nobody_are_named_and_never_read(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    store.commit("a", tables("a", ["a dog"]), record("a"))
    shutil.copy(_of(store), Path(store.url, "samples", "a copy.parquet"))
    Path(store.url, "samples", "._a.parquet").write_bytes(b"\x00\x05\x16\x07")
    Path(store.url, "boxes", "notes.parquet").write_text("no parquet")
    assert status(store)["files of no shard"] == ["samples/a copy.parquet", "boxes/notes.parquet"]
    store.require_whole()
    assert captions(store) == {"a": ["a dog"]}
    assert captions(compact(store, str(tmp_path / "copy"))) == {"a": ["a dog"]}
    store.sweep_tables()
    assert Path(store.url, "boxes", "notes.parquet").exists()  # a user's own file is the user's


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '"a"', '{"shard": 3}', "\x00"])
def test_a_record_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    store.commit("a", tables("a", ["a dog"]), record("a"))
    Path(store.url, "shards", "a.json").write_text(text)
    for ask in (status, store.commits, verify, lambda s: query(s, "SELECT 1 FROM samples"), compact):
        with pytest.raises(UserError, match=r"shards/a\.json .*delete it"):
            ask(store) if ask != store.commits else ask()  # type: ignore[operator]


@pytest.mark.parametrize(
    "given", ["{}", '{"schema_version": 2}', '{"settings": {}}', "[]", '{"schema_version": 2, "settings": 1}']
)
def test_a_description_that_is_none_is_one_line_and_nobody_is_told_to_delete_it(
    tmp_path: Path, given: str
) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    store.commit("a", tables("a", ["a dog"]), record("a"))
    store.close()
    Path(store.url, "store.json").write_text(given)
    with pytest.raises(UserError, match=r"store\.json .*restore it from a copy$"):
        Store.open(store.url)
    Path(store.url, "store.json").unlink()
    with pytest.raises(UserError, match="restore it from a copy"):
        Store.create(store.url, SETTINGS)


@pytest.mark.parametrize("name", ["", ".a", "_schema", "a/b", "a\\b", "a\nb", "x" * 181, "é" * 91, "a\x7f"])
def test_unfit_names_are_refused(tmp_path: Path, name: str) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    with pytest.raises(UserError, match="no name of a shard"):
        store.commit(name, tables("a", ["a dog"]), record(name))


def test_views_of_the_duckdb_command_see_what_python_sees(tmp_path: Path) -> None:
    import duckdb

    store = Store.create(str(tmp_path / "it's a store"), SETTINGS)
    for name in NAMES:
        store.commit(name, tables(name, [name]), record(name))
    merge(store, everything=True)
    store.commit("a", tables("a", ["again", "and again"]), record("a"))
    store.commit("new", tables("new", ["new"]), record("new"))
    store.drop(["e"])
    store.write_views()
    with duckdb.connect() as outside:
        outside.execute(Path(store.url, "views.sql").read_text())
        for view in VIEWS:
            ask = f"SELECT * FROM {view} ORDER BY ALL"
            assert outside.execute(ask).fetchall() == connect(store).execute(ask).fetchall(), view
    assert "e" not in captions(store)


def test_a_merge_takes_in_what_is_no_larger_and_rows_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("macco.pipeline.merge.LOOSE", 4)
    monkeypatch.setattr("macco.pipeline.merge.GROUP", 8)
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    numbers, made = [7 * n % 64 for n in range(64)], []
    for number in numbers:
        name = f"{number:03}"
        store.commit(name, tables(name, [f"{name} {row}" for row in range(3)]), record(name))
        if merge(store):
            made.append(len(store.commits().packs))
    assert max(made) <= 5  # not 16
    assert captions(store) == {f"{n:03}": [f"{n:03} {row}" for row in range(3)] for n in range(64)}
    for pack in store.commits().packs:
        shards = pq.read_table(io.BytesIO(store.read(f"samples/{pack}.parquet")))["shard"].to_pylist()
        assert shards == sorted(shards)
        assert pq.read_metadata(store.path(f"samples/{pack}.parquet")).row_group(0).num_rows <= 8


def test_shards_of_a_former_record_without_sizes_are_counted(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    for name in "ab":
        store.commit(name, tables(name, [name, name]), record(name))
        path = Path(store.url, "shards", f"{name}.json")
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"bytes": None, "boxes": 2 + (name == "b")})
        )
        old = json.loads(path.read_text())
        del old["bytes"]
        path.write_text(json.dumps(old))
    assert store.commits().damaged == {"b": "boxes/b.parquet has 2 rows, not the 3 that were written"}


def test_a_full_disk_in_a_merge_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.create(str(tmp_path / "store"), SETTINGS)
    for name in "ab":
        store.commit(name, tables(name, [name]), record(name))
    store.close()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            compact(Store.open(store.url))
        with pytest.raises(UserError, match="No space left"):
            compact(store, str(tmp_path / "copy"))
    assert captions(store) == {"a": ["a"], "b": ["b"]}
    assert captions(compact(Store.open(store.url))) == {"a": ["a"], "b": ["b"]}
