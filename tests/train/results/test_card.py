"""The model card of an exported CLIP: its header, its figures, and the code in it, which is run."""

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.published import without_folders
from macco.preprocess.cli import app as macco_prep
from macco.train.cli import app as macco_train
from macco.train.clip.write import export_open_clip
from macco.train.layers import parse, resolve
from macco.train.loop.run import train
from macco.train.results.product import export_run
from tests.support.drawn import drawn_store
from tests.train.loop.test_train_run import CLIP, never, quiet
from tests.train.objectives.test_runs import SETTINGS


def give(*arguments: object, code: int = 0, app: Any = macco_train) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    url = drawn_store(folder / "drawn")
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), folder / "start", CLIP)
    given = [f"data.store={url}", f"model.name={folder / 'start'}", "data.where=score >= 0.1"]
    assert train(resolve(parse([*SETTINGS, "steps=1", *given])), folder / "run", never, quiet)
    export_run(folder / "run", folder / "run" / "model")  # as the command does at its end
    give("demo", folder / "data" / "demo", "--benchmark", "--split", "val", "--images", "2", app=macco_prep)
    asked = ["--data", folder / "data", "--benchmark", "demo", "--device", "cpu", "--workers", "0"]
    give("eval", folder / "run", *asked, "--out", folder / "run" / "eval")
    give("eval", folder / "start", *asked, "--out", folder / "other")
    return folder / "run"


def code_of(card: ModelCard) -> str:
    (code,) = [block.split("```")[0] for block in card.text.split("```python\n")[1:]]
    return code


@pytest.mark.parametrize(("format", "library"), [("open_clip", "open_clip"), ("hf", "transformers")])
def test_a_card_is_read_by_the_hub_and_its_code_runs_in_an_empty_folder(
    format: str, library: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    said = give("export", run, "--out", tmp_path / "mine", "--format", format, "--card")
    assert f"hf upload NAME/mine {tmp_path / 'mine'}" in said
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert (card.data.library_name, card.data.license) == (library, "other")
    assert {"macco", "clip"} <= set(card.data.tags or ())
    (report,) = json.loads((run / "eval" / "report.json").read_text())["benchmarks"]
    figures = {one["figure"]: one["percent"] for one in report["figures"] if one["percent"] is not None}
    results = card.data.eval_results or []
    assert {one.metric_name: one.metric_value for one in results} == pytest.approx(figures, abs=0.01)
    assert {one.dataset_name for one in results} == {report["title"]}
    assert card.data.model_name == "mine"
    for words in (
        "`macco`, 1 steps of 10 pairs",
        "score >= 0.1",
        "fingerprint",
        "| captions | 60 |",
        "`start`: its own",
    ):
        assert words in card.text
    assert str(run.parent) not in card.content  # nothing of the machine
    (tmp_path / "empty").mkdir()
    shutil.move(tmp_path / "mine", tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    exec(compile(code_of(card), "README.md", "exec"), {})
    assert "tensor([[" in capsys.readouterr().out


def test_a_card_has_no_figures_but_those_of_its_model(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    none = ["export", run, "--out", out, "--weights", "latest", "--interpolate", "0.5"]
    give(*none, "--card")  # the run was evaluated as it was trained
    assert "This model was not evaluated" in ModelCard.load(out / "README.md").text
    assert not ModelCard.load(out / "README.md").data.eval_results
    export = ["export", run, "--out", tmp_path / "other", "--card", "--figures"]
    for arguments, said in (
        ([*none, "--card", "--figures", run / "eval"], "has figures of"),
        ([*export, run.parent / "other"], "has figures of"),
        ([*export, tmp_path], "no report.json"),
        ([*none, "--figures", run / "eval"], "give --card"),
    ):
        with pytest.raises(UserError, match=said):
            give(*arguments)
    assert not (tmp_path / "other").exists()
    assert "of an earlier export" in give(*none)


def test_a_store_that_is_gone_is_said(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(config.replace("/drawn", "/gone"))
    give("export", moved, "--out", tmp_path / "mine", "--card")
    assert "which cannot be opened" in ModelCard.load(tmp_path / "mine" / "README.md").text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/me/a b/store", "store"),
        ("graphs:/home/me/g.jsonl", "graphs:g.jsonl"),
        ("boxes:~/b.parquet", "boxes:b.parquet"),
        ("groundingdino:/m/f.pth@/m/c.py", "groundingdino:f.pth@c.py"),
        ("s3://bucket/of/mine", "mine"),
        ("transformers:google/owlv2", "transformers:google/owlv2"),
        ("score >= 0.4 / 2", "score >= 0.4 / 2"),
        (["/a/b", {"x": "/c/d"}, 3], ["b", {"x": "d"}, 3]),
    ],
)
def test_folders_of_the_machine_are_left_out(given: Any, shown: Any) -> None:
    assert without_folders(given) == shown
