"""What a run says: of weights and time, of a finished run, of a store without boxes, of weights that are not here."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from macco.pipeline.coverage import few_boxes
from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.cli import app
from macco.train.clip.load import load_clip
from tests.support import ROOT
from tests.support.rows import record, tables

START = ROOT / "tests" / "fixtures" / "v0.1" / "start"
SMALL = [
    "data.batch_size=8", "data.workers=0", "log_every=1", "device=cpu", "optimizer.warmup=1", "method.text_depth=1",
    "method.image_depth=1", "model.pretrained=", f"model.name={START}",
]  # fmt: skip


def given(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["run", *map(str, arguments)], catch_exceptions=False)


def test_the_line_of_a_step_has_weights_and_the_time_left(store: Store, tmp_path: Path) -> None:
    done = given(
        "--store", store.url, "--out", tmp_path / "r", *SMALL, "steps=2", "method.mir=1", "method.mlm=3"
    )
    first, last = (line for line in done.output.splitlines() if line.startswith("step"))
    for weighted in (" x3  ", " x250  "):
        assert weighted in first
    assert " x1 " not in first
    assert last.endswith("0:00:00 left")
    assert "warning" not in done.output


def test_a_finished_run_says_how_to_train_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert given("--store", store.url, "--out", "r", *SMALL, "steps=1").exit_code == 0
    with pytest.raises(UserError) as caught:
        given("--store", store.url, "--out", "r", *SMALL, "steps=3")
    command = shlex.split(str(caught.value).partition("macco-train ")[2])
    assert command[0] == "run"
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert len((tmp_path / "r-2" / "metrics.jsonl").read_text().splitlines()) == 3


def test_no_box_left_is_said(store: Store, tmp_path: Path) -> None:
    done = given("--store", store.url, "--out", tmp_path / "r", *SMALL, "steps=1", "--where", "score > 2")
    assert done.exit_code == 0
    assert "no box is left to train on, and no patch will be masked" in done.stderr


@pytest.mark.parametrize(
    ("boxes", "threshold", "warned"), [(1, 0.35, False), (0, 0.35, True), (1, 0.95, True)]
)
def test_few_boxes_are_warned_of(boxes: int, threshold: float, warned: bool, tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "s"), {"detector": "tiny"})
    assert few_boxes(store, threshold) is None
    for shard in "ab":
        store.commit(shard, tables(shard, ["a dog"] * 3, boxes=boxes), record(shard))
    line = few_boxes(store, threshold)
    assert (line is not None) == warned
    if line is not None:
        assert "0.0 % of 6 objects" in line
        assert "--detector" in line
        assert "\n" not in line


def test_weights_that_are_not_here_are_one_line(tmp_path: Path) -> None:
    """Without a network, told of it or not: nothing is asked of the Hub more than once."""
    code = """
from huggingface_hub import constants
from macco.pipeline.errors import UserError
from macco.train.clip.load import load_clip
for constants.HF_HUB_OFFLINE in (False, True):
    try:
        load_clip("ViT-B-32", "openai")
    except UserError as error:
        print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": ""}
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("the weights of ViT-B-32 openai are not on this machine")
        assert "hf download timm/vit_base_patch32_clip_224.openai" in line
    assert "Retrying" not in done.stderr


def test_a_wrong_name_is_still_told_from_a_lost_network() -> None:
    with pytest.raises(UserError, match="open_clip cannot load"):
        load_clip("ViT-B-33", "openai")


def test_a_checkpoint_of_other_settings_than_its_config_is_one_line(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "r"
    assert given("--store", store.url, "--out", run, *SMALL, "steps=1").exit_code == 0
    config = run / "config.yaml"
    text = config.read_text()
    for old, new in (("text_depth: 1", "text_depth: 2"), ("image_depth: 1", "image_depth: 2")):
        assert old in text
        config.write_text(text.replace(old, new))
        assert CliRunner().invoke(app, ["report", str(run)], catch_exceptions=False).exit_code == 0
        assert "is of other settings than its config" in (run / "report.html").read_text()
    config.write_text(text.replace("ema: 0.0", "ema: 0.5"))
    with pytest.raises(UserError, match="no moving average"):
        CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "x")], catch_exceptions=False)
