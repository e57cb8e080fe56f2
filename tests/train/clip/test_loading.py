"""Whatever a model is named by, it is opened with its activation, tokenizer and preprocessing."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.train.cli import app
from macco.train.clip.load import activation_of, load_clip
from tests.support.evaluated import small_clip
from tests.support.tiny import tiny_clip


def test_load_clip(folder: Path, tmp_path: Path) -> None:
    exported = load_clip(str(folder))
    assert activation_of(exported.model) == "gelu"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(folder)
    assert activation_of(load_clip(str(tmp_path / "run")).model) == "gelu"
    quick = load_clip(str(folder), activation="quick_gelu")
    assert activation_of(quick.model) == "quick_gelu"
    tokens = exported.tokenizer(["a red dog"])
    with torch.no_grad():
        assert not torch.allclose(
            exported.model.encode_text(tokens), quick.model.encode_text(tokens), atol=1e-6
        )

    torch.save({"state_dict": small_clip().state_dict()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="--activation"):
        load_clip(str(tmp_path / "a.pt"))
    checkpoint = load_clip(str(tmp_path / "a.pt"), activation="gelu")
    assert checkpoint.tokenizer(["a red dog"]).shape == tokens.shape
    assert checkpoint.preprocess(Image.new("RGB", (30, 20))).shape == (3, 16, 16)

    for name, message in {
        "ViT-B-33": "ViT-B-32",
        str(tmp_path): "open_clip_config.json",
        "./no/such.pt": "check the path",
    }.items():
        with pytest.raises(UserError, match=message):
            load_clip(name)
    with pytest.raises(UserError, match="gelu or quick_gelu"):
        load_clip(str(folder), activation="relu")


def test_openai_weights_are_run_with_the_activation_they_were_trained_with() -> None:
    from macco.train.clip.load import _trained_with

    assert _trained_with("ViT-B-32", "openai") == "quick_gelu"
    assert _trained_with("ViT-B-32", "laion2b_s34b_b79k") is None
    assert _trained_with("ViT-B-32", None) is None


def test_an_architecture_with_random_weights(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    path = folder.parent / "small-for-tests.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    a = load_clip("small-for-tests")
    assert a.preprocess(Image.new("RGB", (30, 20))).shape == (3, 16, 16)
    torch.save({"state_dict": a.model.state_dict()}, path.with_name("weights.pt"))
    with pytest.raises(UserError, match="do not tell their activation"):
        load_clip("small-for-tests", str(path.with_name("weights.pt")))
    assert (
        activation_of(load_clip("small-for-tests", str(path.with_name("weights.pt")), "quick_gelu").model)
        == "quick_gelu"
    )
    quick = path.with_name("small-quick-for-tests.json")
    quick.write_text(json.dumps(config | {"quick_gelu": True}))
    open_clip.add_model_config(quick)
    assert (
        activation_of(load_clip("small-quick-for-tests", str(path.with_name("weights.pt"))).model)
        == "quick_gelu"
    )


def test_weights_are_not_given_twice(folder: Path, tmp_path: Path) -> None:
    torch.save(small_clip().state_dict(), tmp_path / "a.pt")
    for name in (str(folder), str(tmp_path / "a.pt"), "macco-demo"):
        for weights in ("openai", str(tmp_path / "a.pt")):
            with pytest.raises(UserError, match="weights of its own"):
                load_clip(name, weights, activation="gelu")
        for weights in ("openai", "random"):
            asked = [
                "eval",
                name,
                "--pretrained",
                weights,
                "--activation",
                "gelu",
                "--out",
                str(tmp_path / "o"),
            ]
            with pytest.raises(UserError, match="weights of its own: leave --pretrained out"):
                CliRunner().invoke(app, asked, catch_exceptions=False)
        asked = ["run", "--store", str(tmp_path), f"model.name={name}", "--out", str(tmp_path / "o")]
        with pytest.raises(UserError, match=r"weights of its own: leave model\.pretrained out"):
            CliRunner().invoke(app, [*asked, "model.pretrained=openai"], catch_exceptions=False)
        with pytest.raises(UserError, match="is not a concept store"):  # the default is no choice
            CliRunner().invoke(app, asked, catch_exceptions=False)


def test_a_file_of_another_vocabulary_has_no_tokenizer(tmp_path: Path) -> None:
    torch.save(tiny_clip().float().state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="a vocabulary of 40, not CLIP's of 49408"):
        load_clip(str(tmp_path / "a.pt"), activation="gelu")
    with pytest.raises(UserError, match="a vocabulary of 40"):
        CliRunner().invoke(
            app, ["import", str(tmp_path / "a.pt"), "--out", str(tmp_path / "o")], catch_exceptions=False
        )
    assert not (tmp_path / "o").exists()
