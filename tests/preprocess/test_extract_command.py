"""How the extract command ends."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

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
