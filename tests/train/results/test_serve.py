"""Samples as training sees them, with a run and before any, and two evaluations item by item."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.schema import NEGATIVE_KINDS
from macco.pipeline.store import Store
from macco.preprocess.cli import app as macco_prep
from macco.train import layers
from macco.train.cli import app as macco_train
from macco.train.data.negatives import write_negatives
from macco.train.results.look import Look
from macco.train.results.seen import Seen
from macco.train.results.serve import Runs, runs_app
from tests.support.drawn import drawn_store
from tests.support.scored import evaluation

FORMER = Path(__file__).parents[2] / "fixtures" / "v0.1"
Ask = Callable[[TestClient], Any]


def listening(monkeypatch: pytest.MonkeyPatch, app: Any, words: list[str], ask: Ask) -> Any:
    """What `ask` gets from the page that a command serves: here it is asked in place of listening."""
    found: list[Any] = []

    def listen(make: Callable[[str | None], Any], **given: Any) -> None:
        found.append(ask(TestClient(make(None), base_url="http://127.0.0.1:1")))

    monkeypatch.setattr("macco.pipeline.page.server.serve", listen)
    done = CliRunner().invoke(app, ["serve", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found[0]


def run_elsewhere(folder: Path) -> Path:
    """A run whose store is no longer where it was, seen from here."""
    run = Path(shutil.copytree(FORMER / "macco", folder / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["name"] = str(FORMER / "start")
    config["data"] |= {"store": "gone/store", "cache": "gone/cache"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


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
    asked = TestClient(runs_app(Look.of([str(a), str(b)]), None, None), base_url="http://127.0.0.1:1")
    assert asked.get("/api/items?a=0&b=1&differ=1").json() == found
    assert asked.get("/api/items?a=0&b=7").status_code == 400
    assert asked.get("/runs").status_code == asked.get("/runs.js").status_code == 200
    assert asked.get("/", headers={"host": "evil.example"}).status_code == 403


def test_a_folder_that_is_neither_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run nor"):
        Runs([tmp_path])


def test_what_training_sees_is_shown_before_any_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(store.url, tmp_path / "store"))
    write_negatives(Store.open(str(copy)), 0, lambda line: None)
    sample = sorted(row["sample_id"] for row in store.table("samples", min(store.committed())).to_pylist())[0]

    def ask(page: TestClient) -> Any:
        return page.get("/api/store").json()["seen"], page.get(f"/api/seen?sample={sample}").json()

    by, seen = listening(monkeypatch, macco_train, ["--store", str(copy)], ask)
    assert "paper" in by
    assert (seen["grid"], len(seen["patches"])) == (7, 49)  # of a ViT-B/32, whose weights are not asked for
    assert any(token["masked"] for token in seen["tokens"])
    assert seen["negatives"] == []
    assert len(seen["siblings"]) == 4
    tiny = ["--preset", "tiny", "masks.attributes=false", "masks.relations=none", "method.negatives=2"]
    by, seen = listening(monkeypatch, macco_train, ["--store", str(copy), *tiny], ask)
    assert by == "preset tiny, masks.attributes=false, masks.relations=none, method.negatives=2"
    assert not any(token["masked"] for token in seen["tokens"])
    assert {one["kind"] for one in seen["negatives"]} <= {*NEGATIVE_KINDS[:2]}
    assert seen["lacks"] == []
    _, seen = listening(monkeypatch, macco_train, ["--store", store.url, *tiny], ask)
    assert seen["lacks"] == [
        f"there are no hard negatives of this shard yet: macco-train negatives {store.url}"
    ]
    (command,) = listening(monkeypatch, macco_prep, [str(copy)], lambda page: [page.get("/api/store").json()])
    assert command["training"] == f"macco-train serve --store {copy}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.mlm=0"], "say what to look at"),
        (["--preset", "tiny"], "say what to look at"),
        (["RUN", "--preset", "tiny"], "a run has its settings already"),
        (["RUN", "method.mlm=0"], "only data.* and masks.* may be others"),
        (["--store", "STORE", "method.mlm"], "neither a run nor"),
        (["--store", "STORE", "mlm=1"], "unknown key mlm"),
    ],
)
def test_settings_that_nothing_is_seen_with_are_a_users_mistake(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = drawn_store(tmp_path, shards=1, images=1)
    names = {"RUN": str(FORMER / "macco"), "STORE": url}
    monkeypatch.setattr("macco.pipeline.page.server.serve", lambda make, **given: make(None))
    with pytest.raises(UserError, match=re.escape(said)):
        CliRunner().invoke(
            macco_train, ["serve", *(names.get(word, word) for word in words)], catch_exceptions=False
        )


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        ("objective=fsc", ["negatives"]),
        ("objective=c2lip", []),
        ("objective=csclip", ["negatives", "units"]),
        ("objective=itm joint.tower=trained joint.offline=2", ["negatives"]),
    ],
)
def test_every_objective_that_reads_crops_shows_them(settings: str, lacking: list[str], store: Store) -> None:
    """Also where the store has not yet got what it reads, which is said."""
    seen = Seen(Look.of(settings.split(), ["tiny"], store.url).config, store)
    sample = store.table("samples", min(store.committed())).to_pylist()[0]
    found = seen(sample["sample_id"], 0)
    assert [one.split()[-2] for one in found["lacks"]] == lacking
    text = "".join(token["text"] for token in found["tokens"])
    assert text == sample["caption"].lower().replace(" ", "")
    assert not any(token["masked"] for token in found["tokens"])
    assert found["image"].startswith("data:image/png")


def test_features_made_before_are_said_to_have_no_crop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(page: TestClient) -> str:
        assert page.get("/api/figures").json()["figures"]
        return str(page.get("/api/seen?sample=any").json()["error"])

    assert "no crop" in listening(monkeypatch, macco_train, ["--store", store.url, "--preset", "cacr"], ask)


def test_a_run_rebuilds_samples_of_the_store_that_is_given(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_elsewhere(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_negatives(
        Store.open(copy := str(shutil.copytree(store.url, tmp_path / "store"))), 0, lambda line: None
    )
    with pytest.raises(UserError, match=r"was trained on gone/store, .*give --store STORE"):
        Runs([run]).examples(0)

    def ask(page: TestClient) -> Any:
        sample = page.get("/api/figures?limit=1").json()["figures"][0]["captions"][0]["sample_id"]
        return page.get("/api/examples?run=0").json(), page.get(f"/api/seen?sample={sample}").json()

    examples, seen = listening(monkeypatch, macco_train, [str(run), "--store", copy], ask)
    assert len(examples) == 6
    known = {
        row["sample_id"] for shard in store.committed() for row in store.table("samples", shard).to_pylist()
    }
    assert {one["id"] for one in examples} <= known
    assert seen["image"].startswith("data:image/png")


def test_boxes_of_several_detectors_are_chosen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(drawn_store(tmp_path, shards=1, images=2))
    store.begin_grounding("other", {"detector": "other"})
    store.put_boxes("other", "00000", store.table("boxes", "00000").slice(0, 0), {})
    words, sample = ["--store", store.url, "--preset", "tiny"], "d/00000/000000000/0"

    def patches(page: TestClient) -> int:
        return max(sum(page.get(f"/api/seen?sample={sample}&seed={n}").json()["patches"]) for n in range(3))

    with pytest.raises(UserError, match="has boxes of imported, other: choose one"):
        listening(monkeypatch, macco_train, words, patches)
    none = [*words, "masks.rectangle=0", "data.detector=other"]
    assert listening(monkeypatch, macco_train, none, patches) == 0
    assert listening(monkeypatch, macco_train, [*words, "data.detector=imported"], patches) > 0


def test_an_evaluation_is_not_compared_with_itself(tmp_path: Path) -> None:
    one = evaluation(tmp_path / "a", [True, False])
    with pytest.raises(UserError, match="one evaluation has nothing to be compared with"):
        Runs([one]).items(0, 0, "", differ=True, at=0)
    with pytest.raises(UserError, match="choose two"):
        Runs([one, evaluation(tmp_path / "b", [True, True])]).items(1, 1, "", differ=True, at=0)
