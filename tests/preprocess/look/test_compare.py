"""Own annotations beside the authors'."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.preprocess.exchange.coco import export_fiftyone
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.tsv import export_tsv
from macco.preprocess.look import compare as module
from macco.preprocess.look.compare import compare
from macco.preprocess.look.score import Agreement
from tests.support.bundled import write_tsv


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, Path]:
    tsv = write_tsv(tmp_path)
    import_tsv(tsv, str(tmp_path / "store"), str(tmp_path))
    return Store.open(str(tmp_path / "store")), tsv


def test_a_store_of_a_tsv_agrees_with_it(made: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store, tsv = made
    whole = compare(store, tsv, 0.35)
    assert whole["rows"] == {"tsv": 40, "bad": 0, "shared": 40}
    assert whole["spans"]["attribute"] == Agreement(80, 80, 80)
    assert whole["spans"]["relation"] == Agreement(40, 40, 40)
    assert whole["boxes"] == {"attribute": Agreement(64, 64, 64), "relation": Agreement(32, 32, 32)}
    monkeypatch.setattr(module, "BATCH", 7)
    assert compare(store, tsv, 0.35) == whole


def test_other_words_and_other_boxes_are_counted(made: tuple[Store, Path], tmp_path: Path) -> None:
    store, tsv = made
    with open(tsv, newline="") as stream:
        header, *lines = csv.reader(stream, delimiter="\t")
    for number, line in enumerate(lines):
        line[4] = "['small']"  # of the attributes, one
        line[7] = line[7].replace(
            "[40.0, 30.0, 72.0, 54.0]", "[0.0, 0.0, 4.0, 4.0]" if number % 2 else "[40.0, 30.0, 70.0, 54.0]"
        )
    lines[3][0] += " Really."  # a caption that the store has not
    with open(tmp_path / "other.tsv", "w", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows([header, *lines])
    found = compare(store, tmp_path / "other.tsv", 0.35)
    assert found["rows"]["shared"] == 39
    assert found["spans"]["attribute"] == Agreement(39, 78, 39)
    moved = sum(1 for number in range(40) if number % 5 and number % 2 and number != 3)
    grounded = sum(1 for number in range(40) if number % 5 and number != 3)
    assert found["boxes"]["attribute"] == Agreement(grounded - moved, grounded, grounded)
    assert found["boxes"]["relation"] == Agreement(grounded, grounded, grounded)


def test_an_extraction_agrees_with_its_own_tsv(store: Store, tmp_path: Path) -> None:
    """Images in tars: the TSV that a store writes names them otherwise; imported, the two are one."""
    export_tsv(store, tmp_path / "own.tsv", 0.35)
    export_fiftyone(store, tmp_path / "images", 0.35)
    import_tsv(tmp_path / "own.tsv", str(tmp_path / "imported"), str(tmp_path / "images" / "data"))
    found = compare(Store.open(str(tmp_path / "imported")), tmp_path / "own.tsv", 0.35)
    assert found["rows"]["shared"] == found["rows"]["tsv"]
    assert found["spans"]["attribute"].f1 == 1
    assert found["boxes"]["attribute"].f1 == 1


def test_nothing_shared_is_an_error_and_the_command_prints_shares(
    made: tuple[Store, Path], tmp_path: Path
) -> None:
    store, tsv = made
    text = tsv.read_text().replace("COCO_", "other_")
    (tmp_path / "none.tsv").write_text(text)
    with pytest.raises(UserError, match="share no caption"):
        compare(store, tmp_path / "none.tsv", 0.35)
    result = CliRunner().invoke(app, ["compare", store.url, str(tsv)])
    assert result.exit_code == 0, result.output
    assert "boxes: relation" in result.output
    assert "share_of_theirs" in result.output
