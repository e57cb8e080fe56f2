"""Samples as a run sees them, and two evaluations item by item."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train import layers
from macco.train.results.seen import Seen
from macco.train.results.serve import Runs, runs_app
from tests.support.drawn import drawn_store
from tests.support.scored import evaluation


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    url = drawn_store(tmp_path_factory.mktemp("drawn"), shards=2, images=3)
    config = layers.resolve(layers.preset("tiny"), {"data": {"store": url}})
    return Seen(config, Store.open(url))


def test_a_sample_is_drawn_as_training_would(seen: Seen) -> None:
    found = seen("d/00001/000000002/0", 0)
    assert "".join(token["text"] for token in found["tokens"]) == "areddogissittingonasmallsofa."
    masked = {token["text"] for token in found["tokens"] if token["masked"]}
    assert {"red", "small", "sitting"} <= masked
    assert not {"a", "is", "dog"} & masked
    assert len(found["patches"]) == found["grid"] ** 2
    assert 0 < sum(found["patches"]) < len(found["patches"])
    assert found["image"].startswith("data:image/png;base64,")
    assert found == seen("d/00001/000000002/0", 0)
    assert any(seen("d/00001/000000002/0", seed)["patches"] != found["patches"] for seed in range(1, 9))


@pytest.mark.parametrize("name", ["", "d/00001/nothing/0", "d/../00001/000000002/0", "d/00009/000000002/0"])
def test_a_sample_that_is_not_there_is_a_users_mistake(name: str, seen: Seen) -> None:
    with pytest.raises(UserError, match="no sample"):
        seen(name, 0)


def test_two_evaluations_are_compared_item_by_item(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", [True, True, False, False])
    b = evaluation(tmp_path / "b", [True, False, True, False])
    found = Runs([a, b]).items(0, 1, "", differ=True, at=0)
    assert found["counts"] == {"both": 1, "first": 1, "second": 1, "neither": 1}
    assert [(row["item"], row["right"]) for row in found["rows"]] == [
        ("1", [True, False]),
        ("2", [False, True]),
    ]
    asked = TestClient(runs_app([a, b], None, 0.35, None), base_url="http://127.0.0.1:1")
    assert asked.get("/api/items?a=0&b=1&differ=1").json() == found
    assert asked.get("/api/items?a=0&b=7").status_code == 400
    assert asked.get("/runs").status_code == asked.get("/runs.js").status_code == 200
    assert asked.get("/", headers={"host": "evil.example"}).status_code == 403


def test_a_folder_that_is_neither_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run nor"):
        Runs([tmp_path])
