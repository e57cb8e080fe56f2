"""How the extract command ends."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.cli import app


@pytest.mark.parametrize(("images", "code"), [((), 1), (("1.jpg",), 0)])
def test_no_usable_sample_is_a_failure_and_objects_without_boxes_are_told(
    images: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    for name in images:
        Image.new("RGB", (64, 64), "grey").save(tmp_path / name)
    (tmp_path / "t.tsv").write_text(
        "filepath\ttitle\n1.jpg\ta man rides a horse near a tree\nnone.jpg\ta cat\n"
    )
    command = ["extract", "--shards", str(tmp_path / "t.tsv"), "--out", str(tmp_path / "s"), "--workers", "0"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == code
    assert f"'missing_image': {2 - len(images)}" in done.stdout
    assert ("no sample is usable" in done.stderr) == (code == 1)
    assert ("warning: only 0.0 % of 3 objects have a box" in done.stderr) == (code == 0)
    del done  # whose traceback holds the store, and its lock
    again = CliRunner().invoke(app, [*command, "--device", "cpu"], catch_exceptions=False)
    assert again.exit_code == 0  # nothing was to be done


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--shards", "t.tsv", "--parser", "en_core_web_sm"], "give one of them"),
        (["--shards", "t.tsv", "--parser", "en_caption"], "give one of them"),
        (["--reground"], "leave --graphs out"),
    ],
)
def test_graphs_beside_what_would_not_read_them_are_refused(
    given: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "g.jsonl").write_text('{"caption": "a dog", "objects": ["dog"]}')
    command = ["extract", *given, "--graphs", str(tmp_path / "g.jsonl"), "--out", str(tmp_path / "s")]
    with pytest.raises(UserError, match=told):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (tmp_path / "s").exists()


def test_help_says_that_other_packages_have_parsers_and_detectors() -> None:
    said = " ".join(CliRunner().invoke(app, ["extract", "--help"]).output.split())
    assert said.count("another package's, NAME or NAME:ARGUMENT") == 2


@pytest.mark.parametrize(
    "command",
    [
        ["stats"], ["score", "--truth", "t"], ["compare", "t.tsv"], ["view", "--out", "v.html"], ["serve"], ["report"],
        ["export", "--out", "e.json"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("threshold", ["2", "-0.1"])
def test_a_score_that_no_box_has_is_refused(command: list[str], threshold: str, store: Store) -> None:
    done = CliRunner().invoke(app, [command[0], store.url, *command[1:], "--threshold", threshold])
    assert done.exit_code == 2
    assert "Invalid value for '--threshold'" in done.output
