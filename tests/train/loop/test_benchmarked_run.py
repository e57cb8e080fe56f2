"""Benchmarks during training, the best checkpoint by them; and leaving out the images that a benchmark has."""

import json
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.train.cli import app
from macco.train.clip.write import export_open_clip
from macco.train.config import TrainConfig
from macco.train.evaluation.manifest import Places
from macco.train.evaluation.registry import run as run_benchmark
from macco.train.layers import parse, preset, resolve
from macco.train.loop.run import train
from macco.train.objectives.objective import Scoring, dual_encoder
from macco.train.runs import checkpoint
from macco.train.runs.metrics import read as read_metrics
from macco.train.runs.weights import trained_clip
from tests.support.commands import Command
from tests.support.drawn import drawn_store, jpeg
from tests.support.evaluated import draw, small_clip
from tests.train.loop.test_train_run import after, equal, never, quiet, state

TEXT = "benchmarks/cola/text"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a small model, and a benchmark of 40 items with an image of the store in one of them."""
    folder = tmp_path_factory.mktemp("place")
    drawn_store(folder)
    export_open_clip(small_clip(), folder / "clip")
    images = folder / "data" / "cola" / "images"
    for n in range(80):
        draw(images / f"{n:03}.png", n)
    (images / "000000003.jpg").write_bytes(jpeg(3))
    names = ["000000003.jpg", *(f"{n:03}.png" for n in range(1, 80))]
    items = [
        [f"http://x/{a}", f"a {n} dog", f"http://x/{b}", f"dog a {n} red"]
        for n, (a, b) in enumerate(zip(names[::2], names[1::2], strict=True))
    ]
    (folder / "data/cola/COLA_multiobjects_matching_benchmark.json").write_text(json.dumps(items))
    return folder


def configured(place: Path, *assignments: str) -> TrainConfig:
    small = [
        "data.batch_size=20", "data.workers=0", "steps=5", "save_every=0", "log_every=1", "device=cpu",
        "optimizer.warmup=2", "optimizer.lr=3e-3", f"data.store={place / 'store'}", f"model.name={place / 'clip'}",
        "model.pretrained=", f"validation.data={place / 'data'}",
    ]  # fmt: skip
    return resolve(preset("negclip"), parse(["method.negatives=0", *small, *assignments]))


ASKED = ["validation.benchmarks=cola", "validation.every=2", "validation.best=cola/text", "ema=0.9"]


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    assert train(configured(place, *ASKED), run, never, quiet)
    return run


def asked(run: Path) -> dict[float, float]:
    return {row["step"]: row[TEXT] for row in read_metrics(run) if TEXT in row}


def test_benchmarks_are_asked_before_the_first_step_and_every_so_many(place: Path, whole: Path) -> None:
    found = asked(whole)
    assert list(found) == [0, 2, 4, 5]
    rows = [row for row in read_metrics(whole) if TEXT in row]
    assert set(rows[0]) == {"step", TEXT, "benchmarks/cola/accuracy"}
    best = max(found, key=found.__getitem__)  # the first of equal ones
    assert state(whole, checkpoint.BEST)["step"] == best

    def text(weights: str) -> Any:
        scorer, _ = dual_encoder(trained_clip(whole, weights), Scoring())
        report = run_benchmark("cola", scorer, Places(place / "data")).report
        return next(one["percent"] for one in report["figures"] if one["figure"] == "text")

    assert (text("latest"), text("best")) == (found[5], found[best])


def test_asking_moves_no_weight(place: Path, whole: Path, tmp_path: Path) -> None:
    train(configured(place, "ema=0.9"), tmp_path, never, quiet)
    assert equal(state(tmp_path), state(whole))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_that_was_stopped_asks_what_it_has_not_yet(
    steps: int, place: Path, whole: Path, tmp_path: Path
) -> None:
    config = configured(place, *ASKED)
    assert not train(config, tmp_path, after(steps), quiet)
    assert list(asked(tmp_path)) == [0, 2][: 1 + (steps > 2)]
    assert train(config, tmp_path, never, quiet)
    assert asked(tmp_path) == asked(whole)
    for name in (checkpoint.LATEST, checkpoint.BEST):
        assert equal(state(tmp_path, name), state(whole, name))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("validation.benchmarks=colla", "no benchmark is called 'colla'"),
        ("validation.best=cola/txt", r"validation.best is 'cola/txt': did you mean cola/text"),
        ("validation.data=nowhere", r"cola: no .*nowhere.*git clone"),
    ],
)
def test_what_cannot_be_asked_is_one_line_before_the_first_step(
    setting: str, said: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        train(configured(place, "validation.benchmarks=cola", setting), tmp_path, never, quiet)
    assert train(configured(place, *ASKED, "steps=1"), tmp_path, never, quiet)  # the folder is as good as new


def test_a_best_without_benchmarks_and_one_that_is_undefined(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are no validation\.benchmarks"):
        train(configured(place, "validation.best=cola/text"), tmp_path, never, quiet)
    data = tmp_path / "data"
    (data / "cola").mkdir(parents=True)
    for name in ("COLA_multiobjects_matching_benchmark.json", "images"):
        (data / "cola" / name).symlink_to(place / "data" / "cola" / name)
    (data / "sugarcrepe").mkdir()
    row = {"0": {"filename": "1.jpg", "caption": "a dog", "negative_caption": "a cat"}}
    (data / "sugarcrepe" / "swap_obj.json").write_text(json.dumps(row))
    draw(data / "coco" / "val2017" / "1.jpg", 1)
    settings = ["validation.benchmarks=cola, sugarcrepe", f"validation.data={data}"]
    with pytest.raises(UserError, match="sugarcrepe/macro is undefined"):
        train(configured(place, *settings, "validation.best=sugarcrepe/macro"), tmp_path / "a", never, quiet)
    assert train(configured(place, *settings, "steps=1"), tmp_path / "b", never, quiet)
    assert "benchmarks/sugarcrepe/macro" not in read_metrics(tmp_path / "b")[0]


@pytest.mark.processes
def test_two_ranks_ask_once(place: Path, tmp_path: Path) -> None:
    settings = [
        "negclip",
        *ASKED,
        "method.negatives=0",
        "data.workers=0",
        "steps=2",
        "device=cpu",
        "save_every=0",
    ]
    command = ["run", "--preset", *settings, "data.batch_size=20"]
    command += [f"model.name={place / 'clip'}", "model.pretrained=", f"validation.data={place / 'data'}"]
    command += ["--store", str(place / "store"), "--out", str(tmp_path / "run")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = [Command("macco-train", *command, **address, RANK=str(i), LOCAL_RANK=str(i)) for i in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.err for rank in ranks]
    assert list(asked(tmp_path / "run")) == [0, 2]


def test_what_audit_found_is_left_out(place: Path, tmp_path: Path) -> None:
    leaked = tmp_path / "leaked.parquet"
    audit = ["audit", "--store", str(place / "store"), "--data", str(place / "data"), "--benchmark", "cola"]
    assert CliRunner().invoke(app, [*audit, "--out", str(leaked)], catch_exceptions=False).exit_code == 0
    found = pq.read_table(leaked)
    assert set(found["key"].to_pylist()) >= {"000000003"}
    images = {(row["dataset"], row["shard"], row["key"]) for row in found.to_pylist()}
    lines: list[str] = []
    config = configured(place, f"data.exclude={leaked}", "steps=1")
    assert train(config, tmp_path / "run", never, lines.append)
    said = f"excluded by {leaked}: {len(images)} samples; of its {len(images)} images {len(images)} are in the store"
    assert said in lines
    assert f"training set: {60 - len(images)} samples" in lines
    assert read_metrics(tmp_path / "run")[0] == {"step": 0, "excluded_samples": len(images)}
    other = state(tmp_path / "run")["data"]["training_set"]
    assert train(configured(place, "steps=1"), tmp_path / "all", never, quiet)
    assert state(tmp_path / "all")["data"]["training_set"] != other


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no .*macco-train audit --out"),
        (b"text", "is no list of images"),
        ({"image": ["x"]}, "is no list of images"),
        ({"dataset": [], "shard": [], "key": []}, "names no image"),
        (
            {"dataset": ["d"], "shard": ["00000"], "key": ["x"]},
            "none of the 1 images .* was it made of another",
        ),
    ],
)
def test_a_list_that_leaves_nothing_out_is_one_line(
    content: Any, said: str, place: Path, tmp_path: Path
) -> None:
    path = tmp_path / "list.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        pq.write_table(
            pa.table({name: pa.array(cells, pa.string()) for name, cells in content.items()}), path
        )
    with pytest.raises(UserError, match=said) as caught:
        train(configured(place, f"data.exclude={path}"), tmp_path / "run", never, quiet)
    assert "\n" not in str(caught.value)
