"""A folder of a run that is not what a run leaves: half deleted, or with another's file in it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.cli import app
from macco.train.runs import checkpoint
from tests.train.loop.test_messages import SMALL, given


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "r"
    validation = ["validation.where=caption_id = 0", "validation.samples=8"]
    assert given("--store", store.url, "--out", run, *SMALL, *validation, "steps=1").exit_code == 0
    return run


@pytest.mark.parametrize("left", [["checkpoints/best.pt"], ["model"], ["checkpoints/best.pt", "model"]])
def test_a_run_does_not_begin_beside_what_another_made(
    left: list[str], finished: Path, store: Store, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    for name in left:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        whole = finished / name
        shutil.copytree(whole, run / name) if whole.is_dir() else shutil.copy(whole, run / name)
    with pytest.raises(UserError, match="no checkpoint to go on from") as caught:
        given("--store", store.url, "--out", run, *SMALL, "steps=1")
    assert all(name in str(caught.value) for name in left)
    assert not (run / "config.yaml").exists()


@pytest.mark.parametrize("left", ["metrics.jsonl", "report.html", "config.yaml"])
def test_what_a_run_writes_anew_does_not_hinder_it(
    left: str, finished: Path, store: Store, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    run.mkdir()
    shutil.copy(finished / left, run / left)
    assert given("--store", store.url, "--out", run, *SMALL, "steps=1").exit_code == 0


OTHERS: dict[str, Any] = {
    "weights alone": {"visual.proj": torch.zeros(2, 2)},
    "another program's": {"epoch": 1, "state_dict": {}, "optimizer": {}},
    "a list": [1],
    "a step of text": {"step": "1", "model": {}, "optimizer": {}, "rng": [], "data": {}},
    "no place in the data": {"step": 1, "model": {}, "optimizer": {}, "rng": []},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_that_is_no_checkpoint_of_a_run_is_one_line(
    kind: str, finished: Path, store: Store, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "r")
    torch.save(OTHERS[kind], checkpoint.path(run, checkpoint.LATEST))
    commands: list[list[Any]] = [["report", run], ["export", run, "--out", tmp_path / "o"]]
    commands.append(["run", "--out", run])
    for command in commands:
        with pytest.raises(UserError, match=r"latest\.pt is no checkpoint of a run"):
            CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
