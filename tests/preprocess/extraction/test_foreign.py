"""A store of somebody else's: what it names is data."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.preprocess.config import Compute, ExtractConfig


def foreign(folder: Path, **settings: Any) -> str:
    store = Store.create(str(folder / "store"), ExtractConfig().settings() | settings)
    store.fail("00000", {"shard": "00000", "input": {"url": "x.tar"}, "error": "no"})
    store.close()
    return store.url


def test_a_configuration_that_a_store_names_is_not_run(tmp_path: Path) -> None:
    program = tmp_path / "config.py"
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "weights.pth").write_bytes(b"x")
    named = f"groundingdino:{tmp_path / 'weights.pth'}@{program}"
    url = foreign(tmp_path, detector=named)
    for command in (["status", url], ["stats", url], ["retry", url, "--workers", "0"]):
        done = CliRunner().invoke(app, command)
        if command[0] == "retry":
            assert isinstance(done.exception, UserError)
            assert f"--detector {named}" in str(done.exception)
    with pytest.raises(UserError, match="not 'tiny'"):
        ExtractConfig.from_settings({"detector": named}, Compute(), "tiny")
    assert ExtractConfig.from_settings({"detector": named}, Compute(), named).detector == named
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frobnicate": 1}, "frobnicate"),
        ({"device": "cuda"}, "device"),  # how, not what: no store says so
        ({"box_threshold": "high"}, "box_threshold = 'high', which is no float"),
        ({"max_boxes": None}, "max_boxes"),
        ({"max_pixels": True}, "max_pixels"),
        ({"parser": ["a"]}, "parser"),
    ],
)
def test_settings_that_are_none_are_one_line(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    url = foreign(tmp_path)
    path = Path(url, "store.json")
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"settings": described["settings"] | settings}))
    done = CliRunner().invoke(app, ["retry", url, "--workers", "0"])
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
