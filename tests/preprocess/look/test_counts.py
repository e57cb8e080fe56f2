"""What could not be asked is counted over all shards, wherever their records lie."""

from pathlib import Path

from macco.pipeline.merge import merge
from macco.pipeline.store import Store
from macco.preprocess.look.status import status
from tests.support.rows import record, tables


def test_counts_are_the_same_in_records_in_packs_and_in_both(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "it's [1] store"), {"parser": "p"})
    for number, counts in enumerate([{"a": 2, "b": 1}, {"a": 3}, {}, None]):
        name = f"{number:03}"
        store.commit(
            name, tables(name, ["one"]), record(name) | ({} if counts is None else {"counts": counts})
        )
    assert status(store)["counts"] == {"a": 5, "b": 1}
    merge(store, everything=True)
    assert status(store)["counts"] == {"a": 5, "b": 1}
    store.commit("009", tables("009", ["one"]), record("009") | {"counts": {"b": 4}})
    assert status(store)["counts"] == {"a": 5, "b": 5}
