"""Numbers of runs for TensorBoard and W&B, with the libraries themselves, offline."""

import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.metrics import Sinks
from macco.preprocess.cli import app
from macco.train.runs.metrics import Metrics, read

Series = dict[str, list[tuple[int, float]]]


def series(folder: Path) -> Series:
    """What TensorBoard shows of a folder: steps and values by name."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]
    }


def extract(corpus: Path, out: Path, *more: object, code: int = 0) -> str:
    given = ["--shards", f"{corpus}/*.tar", "--out", out, "--workers", 0, "--detector", "none", *more]
    done = CliRunner().invoke(app, ["extract", *map(str, given)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def kept(folder: Path, *names: bytes) -> Path:
    """W&B's file of a run that has ended, once these are in it: a service of W&B's own writes it, in its time."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 60
    while not all(name in file.read_bytes() for name in names):
        assert time.monotonic() < deadline, file.read_bytes()
        time.sleep(0.1)
    return file


def test_tensorboard_has_an_extraction(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store", "--tensorboard", tmp_path / "board")
    found = series(tmp_path / "board")
    shards = len(list(corpus.glob("*.tar")))
    (step, done), (_, samples) = (
        found["shards"][-1],
        found["samples"][-1],
    )  # a row each ten seconds, and the last
    assert step == done == shards
    assert samples > 20
    assert {value for name in ("samples_failed", "shards_failed") for _, value in found[name]} == {0.0}
    assert found["samples_per_second"][0][1] > 0
    busy = {name: points[0][1] for name, points in found.items() if name.startswith("busy_")}
    assert {"busy_parse", "busy_read", "busy_rows", "busy_decode"} <= busy.keys()
    assert 0 < busy["busy_parse"] <= 1


def test_a_part_of_a_run_goes_on_where_the_former_ended(tmp_path: Path) -> None:
    for step, values in ((0, [1.0, 2.0, 3.0]), (2, [20.0])):
        metrics = Metrics(tmp_path, step, tensorboard=True, wandb="", config={})
        for number, value in enumerate(values):
            metrics.write({"step": step + number + 1, "loss": value})
        metrics.close()
    assert series(tmp_path / "tensorboard")["loss"] == [(1, 1.0), (2, 2.0), (3, 20.0)]
    assert [row["loss"] for row in read(tmp_path)] == [1.0, 2.0, 20.0]


@pytest.mark.slow
@pytest.mark.processes
def test_wandb_has_extractions_and_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    extract(corpus, tmp_path / "store", "--wandb", "captions")
    file = kept(tmp_path, b"samples_per_second", b"busy_parse", b"en_caption")
    assert file.stem.startswith("run-store-")
    metrics = Metrics(tmp_path / "run", 0, tensorboard=False, wandb="clips", config={"seed": 77})
    metrics.write({"step": 1, "loss": 1.0})
    metrics.close()
    kept(tmp_path / "run", b"loss")


@pytest.mark.parametrize(
    ("package", "asked"),
    [("torch.utils.tensorboard", {"tensorboard": Path("board")}), ("wandb", {"wandb": "captions"})],
)
def test_a_package_that_is_missing_is_a_line(
    package: str, asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    given = {"tensorboard": None, "wandb": ""} | asked
    with pytest.raises(UserError, match="is not installed: pip install"):
        Sinks(**given, folder=tmp_path, name="x", step=0, config={})  # type: ignore[arg-type]
