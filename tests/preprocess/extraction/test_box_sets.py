"""Further sets of boxes: what they may be called, how they were made, what of them is not whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from macco.pipeline.coverage import few_boxes
from macco.pipeline.errors import UserError
from macco.pipeline.query import query
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.preprocess.exchange.hugging_face import export_hugging_face
from macco.preprocess.extraction.reground import set_name
from tests.support.drawn import drawn_store

IMAGES = 3
SETTINGS = {"detector": "tiny", "dtype": "fp32", "box_threshold": 0.02, "nms_iou": 0.5, "max_boxes": 20}
COUNT = "SELECT count(*) AS n FROM {}"


def give(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def refused(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        give(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def box_file(path: Path, *, score: float = 0.9, images: int = IMAGES) -> Path:
    """One box for the one phrase of each image of every shard, as Parquet or COCO JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{number:09}.jpg" for number in range(images)]
    if path.suffix == ".json":
        size = {"width": 80, "height": 60}
        held = {
            "images": [{"id": at, "file_name": name} | size for at, name in enumerate(names)],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [
                {"image_id": at, "category_id": 1, "bbox": [8, 6, 16, 12]} for at in range(images)
            ],
        }
        path.write_text(json.dumps(held))
        return path
    box = {"phrase": "thing", "x0": 0.1, "y0": 0.1, "x1": 0.3, "y1": 0.3, "score": score}
    pq.write_table(pa.Table.from_pylist([{"image": name} | box for name in names]), path)
    return path


def reground(store: Path, file: Path | str, *more: object, code: int = 0) -> str:
    given = ["--workers", 0, "--detector", f"boxes:{file}", *more]
    return give("extract", "--reground", "--out", store, *given, code=code)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(drawn_store(tmp_path_factory.mktemp("drawn"), shards=2, images=IMAGES))


@pytest.fixture
def store(drawn: Path, tmp_path: Path) -> Path:
    """A store without further sets."""
    return Path(shutil.copytree(drawn, tmp_path / "store"))


@pytest.fixture
def two(store: Path, tmp_path: Path) -> Path:
    """One with a set that is called `other`."""
    reground(store, box_file(tmp_path / "boxes" / "other.parquet"))
    return store


def test_the_name_of_a_file_is_its_stem(store: Path, tmp_path: Path) -> None:
    reground(store, box_file(tmp_path / "coco.json"))
    assert [*Store.open(str(store)).groundings()] == ["coco"]
    assert json.loads(give("status", store, "--json"))["boxes"]["coco"]["shards"] == 2


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        ("boxes:b/good.parquet", "good"),
        ("boxes:my boxes (2).JSON", "my-boxes-2"),
        ("boxes:.hidden.json", "hidden"),
        ("groundingdino:w/model.pth@c/config.py", "model"),
        ("groundingdino:swint", "swint"),
        ("transformers:google/owlv2-base-patch16-ensemble", "owlv2-base-patch16-ensemble"),
        ("transformers:org/model-v1.5/", "model-v1.5"),
    ],
)
def test_a_default_name_is_fit(detector: str, name: str) -> None:
    assert set_name(detector, None, "tiny", ()) == name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("x.json", "--as is 'x.json'"),
        ("x.JSON", "--as is"),
        ("x.parquet", "--as is"),
        ("a/b", "--as is"),
        (".x", "--as is"),
        ("Tiny", "the store's own boxes are called"),
        ("Owl", "'owl'"),
    ],
)
def test_a_name_that_would_clash_is_refused(given: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        set_name("tiny", given, "tiny", ("owl",))


def test_a_store_that_was_hurt_by_a_name_opens_again(two: Path, tmp_path: Path) -> None:
    sets = two / "groundings"
    shutil.copytree(sets / "other", sets / "coco.json")
    shutil.copy(sets / "other.json", sets / "coco.json.json")
    assert [*Store.open(str(two)).groundings()] == ["coco.json", "other"]
    assert count(two, "boxes", "coco.json") == count(two, "boxes", "other") > 0
    assert "0 shards grounded, 2 were there" in reground(
        two, tmp_path / "boxes" / "other.parquet", "--as", "coco.json"
    )


def count(store: Path, what: str, detector: str | None = None) -> int:
    opened = Store.open(str(store))
    if detector is not None:
        opened.choose_boxes(detector)
    return int(query(opened, COUNT.format(what)).to_pylist()[0]["n"])


def test_a_set_without_a_shard_holds_no_name(store: Path, tmp_path: Path) -> None:
    file = box_file(tmp_path / "other.parquet")
    bad = pq.read_table(file)
    pq.write_table(bad.set_column(bad.schema.get_field_index("x0"), "x0", pa.array(["left"] * IMAGES)), file)
    refused("extract", "--reground", "--out", store, "--workers", 0, "--detector", f"boxes:{file}")
    assert "boxes" not in json.loads(give("status", store, "--json"))
    give("stats", store)  # nobody is asked to choose
    box_file(file)
    assert "2 shards grounded" in reground(store, file)
    assert "are called" not in give("status", store)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def other_shard(file: Path) -> None:
    """Of another size, too: what has the same is seen by those who read it all, as in the store's own tables."""
    pq.write_table(pq.read_table(file.with_name("00001.parquet")), file, compression="none")


@pytest.mark.parametrize("damage", [cut, empty, other_shard])
def test_a_shard_of_a_set_that_is_not_whole(
    damage: Callable[[Path], None], two: Path, tmp_path: Path
) -> None:
    before = count(two, "boxes", "other")
    damage(two / "groundings" / "other" / "00000.parquet")
    found = json.loads(told_and(2, "status", two, "--json"))
    assert [*found["boxes"]["other"]["not whole"]] == ["00000"]
    assert found["boxes"]["other"]["shards"] == 1
    checked = json.loads(give("verify", two, "--json", code=1))
    assert [*checked["boxes"]["other"]["not whole"]] == ["00000"]
    give("sql", two, "SELECT count(*) FROM samples")
    give("stats", two, "--detector", "imported")
    told_and(2, "sql", two, "SELECT count(*) FROM all_boxes")
    told_and(2, "stats", two, "--detector", "other")
    answer = tmp_path / "n.json"
    asked = ["--detector", "other", "--format", "json", "--out", answer]
    told_and(2, "sql", two, COUNT.format("boxes"), *asked)
    assert 0 < json.loads(answer.read_text())["n"] < before
    for making in (["export", two, "--detector", "other"], ["compact", two]):
        assert "'other'" in refused(*making, "--out", tmp_path / "out")
    with pytest.raises(
        UserError, match=r"macco-prep extract --reground --out .* --as other --detector boxes:"
    ):
        Store.open(str(two)).choose_boxes("other")
    assert "1 shards grounded, 1 were there" in reground(two, tmp_path / "boxes" / "other.parquet")
    assert count(two, "boxes", "other") == before
    assert "not whole" not in json.loads(give("status", two, "--json"))["boxes"]["other"]
    give("verify", two)


def told_and(code: int, *arguments: object) -> str:
    """What a command says that ends with one line and this exit code."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(done.exception, UserError), done.exception
    assert "'other'" in str(done.exception)
    assert code == 2  # of every UserError
    return done.stdout


def test_what_is_not_whole_of_a_set_is_dropped(two: Path, tmp_path: Path) -> None:
    cut(two / "groundings" / "other" / "00000.parquet")
    give("verify", two, "--drop")
    give("verify", two)
    with pytest.raises(UserError, match="no boxes of 'other' in 1 shards"):
        Store.open(str(two)).choose_boxes("other")


def test_verify_reads_every_row_of_a_set(two: Path) -> None:
    file = two / "groundings" / "other" / "00000.parquet"
    table = pq.read_table(file)
    strange = table.set_column(
        table.schema.get_field_index("concept_id"), "concept_id", pa.array(["nobody's"] * table.num_rows)
    )
    pq.write_table(strange.cast(table.schema), file)
    checked = json.loads(give("verify", two, "--json", code=1))
    assert "no concept" in checked["boxes"]["other"]["not whole"]["00000"]
    assert checked["files"] == 2 * 3 + 2
    give("verify", two, "--drop")
    give("verify", two)


def test_verify_sees_a_copy_of_the_same_size(two: Path) -> None:
    sets = two / "groundings" / "other"
    shutil.copy(sets / "00001.parquet", sets / "00000.parquet")
    assert "00000" in json.loads(give("verify", two, "--json", code=1))["boxes"]["other"]["not whole"]


def test_damage_inside_a_set_s_file_is_found_by_verify(two: Path) -> None:
    file = two / "groundings" / "other" / "00000.parquet"
    data = bytearray(file.read_bytes())
    data[4:60] = bytes(56)
    file.write_bytes(bytes(data))
    assert "00000" in json.loads(give("verify", two, "--json", code=1))["boxes"]["other"]["not whole"]


@pytest.mark.parametrize("held", ["{}", "[1]", "null", "not JSON", "", '{"detector": 3}'])
def test_a_set_whose_record_is_broken(held: str, two: Path, tmp_path: Path) -> None:
    before = count(two, "boxes", "other")
    (two / "groundings" / "other.json").write_text(held)
    assert "not whole" in json.loads(told_and(2, "status", two, "--json"))["boxes"]["other"]
    give("verify", two, code=1)
    give("sql", two, "SELECT count(*) FROM samples")
    assert count(two, "boxes", "imported") > 0
    with pytest.raises(UserError, match="'other'"):
        Store.open(str(two)).choose_boxes("other")
    assert "'other'" in refused("compact", two, "--out", tmp_path / "out")
    assert "2 shards grounded" in reground(two, tmp_path / "boxes" / "other.parquet")
    assert count(two, "boxes", "other") == before
    (two / "groundings" / "other.json").write_text(held)
    give("verify", two, "--drop")
    give("verify", two)
    assert "boxes" not in json.loads(give("status", two, "--json"))


def test_boxes_of_former_files_are_counted_once_more(two: Path) -> None:
    """Those that no index speaks of: a run that was killed, or made by a former version."""
    counts = json.loads(give("status", two, "--json"))["boxes"]["other"]["counts"]
    for file in (two / "groundings" / "other").glob("*.json"):
        file.write_text("{")
    assert json.loads(give("status", two, "--json"))["boxes"]["other"]["counts"] == counts
    assert counts["images in the file"] == 2 * IMAGES


def test_a_file_is_the_same_wherever_it_lies(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "0 shards grounded" in reground(two, "boxes/other.parquet", "--as", "other")
    moved = shutil.copy(tmp_path / "boxes" / "other.parquet", tmp_path / "moved.parquet")
    assert "0 shards grounded" in reground(two, moved, "--as", "other")
    box_file(tmp_path / "moved.parquet", score=0.8)
    told = refused(
        "extract", "--reground", "--out", two, "--workers", 0, "--as", "other", "--detector", f"boxes:{moved}"
    )
    assert "were made with detector" in told


@pytest.mark.parametrize(
    "useless",
    [
        ["--graphs", "g.jsonl"],
        ["--replace"],
        ["--image-root", "."],
        ["--parser", "en_caption"],
        ["--rules", "original"],
        ["--max-pixels", 10],
        ["--parse-workers", 2],
        ["--rows-per-shard", 10],
        ["--format", "auto"],
    ],
)
def test_options_that_mean_nothing_to_it_are_refused(useless: list[Any], drawn: Path, tmp_path: Path) -> None:
    file = box_file(tmp_path / "other.parquet")
    given = ["extract", "--reground", "--out", drawn, "--workers", 0, "--detector", f"boxes:{file}"]
    assert str(useless[0]) in refused(*given, *useless)


def test_a_file_of_which_no_image_joins_is_warned_of(store: Path, tmp_path: Path) -> None:
    file = box_file(tmp_path / "other.parquet", images=1)
    table = pq.read_table(file)
    pq.write_table(table.set_column(0, "image", pa.array(["nowhere.jpg"])), file)
    assert "warning: only 0.0 % of" in reground(store, file)


def test_the_card_is_of_the_set_that_is_exported(two: Path, tmp_path: Path) -> None:
    opened = Store.open(str(two)).choose_boxes("other")
    export_hugging_face(opened, tmp_path / "hf", 0.35, lambda line: None)
    made = (tmp_path / "hf" / "README.md").read_text().partition("## How it was made")[2].partition("##")[0]
    assert "detector: boxes:other.parquet" in made
    assert f"detector_fingerprint: {opened.groundings()['other']['detector_fingerprint']}" in made
    assert "box_threshold: 0.1" in made


def test_the_warning_of_few_boxes_is_of_the_set_that_is_looked_at(two: Path, tmp_path: Path) -> None:
    opened = Store.open(str(two))
    assert few_boxes(opened.choose_boxes("imported"), 0.95) == few_boxes(opened, 0.95)
    line = few_boxes(opened.choose_boxes("other"), 0.95)
    assert line is not None
    assert f"boxes:{tmp_path}/boxes/other.parquet" in line


def test_the_hint_goes_on(two: Path, tmp_path: Path) -> None:
    file = tmp_path / "boxes" / "other.parquet"
    reground(two, file, "--as", "low", "--box-threshold", 0.02, "--max-boxes", 3)
    (two / "groundings" / "low" / "00001.parquet").unlink()
    with pytest.raises(UserError) as caught:
        Store.open(str(two)).choose_boxes("low")
    command = str(caught.value).partition("go on with macco-prep ")[2].split()
    give(*command, "--workers", 0)
    Store.open(str(two)).choose_boxes("low")
