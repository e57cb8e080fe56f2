"""Files of boxes as people write them: what is joined, what is refused, what is counted."""

import codecs
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.pipeline.errors import UserError
from macco.preprocess.detectors import load_detector
from macco.preprocess.detectors.box_file import UNSCORED

BOX: dict[str, Any] = {
    "image": "1.jpg",
    "phrase": "dog",
    "x0": 0.0,
    "y0": 0.0,
    "x1": 0.5,
    "y1": 1.0,
    "score": 0.5,
}
NAMES = ["1", "a/1.jpg", "1.jpg"]


def table(path: Path, *rows: dict[str, Any]) -> str:
    pq.write_table(pa.Table.from_pylist([BOX | row for row in rows]), path / "b.parquet")
    return f"boxes:{path}/b.parquet"


def coco(path: Path, *, mark: bytes = b"", image: Any = 3, **annotation: Any) -> str:
    held = {
        "images": [{"id": 3, "file_name": "1.jpg", "width": 10, "height": 10}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": image, "category_id": 1, "bbox": [1, 1, 5, 5]} | annotation],
    }
    (path / "b.json").write_bytes(mark + json.dumps(held).encode())
    return f"boxes:{path}/b.json"


def found(spec: str, names: list[str] = NAMES, shard: str = "0") -> tuple[int, dict[str, int]]:
    boxes: Any = load_detector(spec)
    (one,) = boxes.look_up(shard, [names], [["dog"]])
    return len(one.boxes), {name: n for name, n in boxes.counts.items() if n}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"phrase": 5}], "phrases of the type int64: text is needed"),
        ([{"score": 84.6}], r"scores beyond 0..1, such as 84.6"),
        ([{"score": 0.5}, {"score": -0.1}], "scores beyond 0..1, such as -0.1"),
        ([{"score": "high"}], "column score of the boxes holds no numbers"),
    ],
)
def test_a_table_of_other_things_is_refused(rows: list[Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        load_detector(table(tmp_path, *rows))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"phrase": 5}, "of a phrase that is no text: 5"),
        ({"image": 1}, "of an annotation whose image_id is 1, which no image has"),
        ({"score": 84.6}, "scores beyond 0..1"),
    ],
)
def test_a_coco_of_other_things_is_refused(given: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        load_detector(coco(tmp_path, **given))


def test_a_coco_with_a_mark_of_the_byte_order_is_read(tmp_path: Path) -> None:
    assert found(coco(tmp_path, mark=codecs.BOM_UTF8, score=None))[0] == 1


def test_a_shard_of_a_number_is_that_shard(tmp_path: Path) -> None:
    spec = table(tmp_path, {"shard": 7})
    assert found(spec, shard="7")[0] == 1
    assert found(spec, shard="8")[0] == 0


def test_a_box_given_again_is_one_box(tmp_path: Path) -> None:
    number, counts = found(table(tmp_path, {}, {}, {"x1": 0.6}))
    assert number == 2
    assert counts["boxes that the file has again"] == 1


def test_a_score_that_is_missing_beside_others_is_counted(tmp_path: Path) -> None:
    assert found(table(tmp_path, {}, {"score": None, "x1": 0.7}))[1][UNSCORED] == 1
    assert UNSCORED not in found(table(tmp_path, {"score": None}))[1]


@pytest.mark.parametrize(
    ("images", "names", "joined"),
    [
        (["/some/where/1.jpg"], ["1", "1.jpg"], 1),
        (["/some/where/a/1.jpg"], NAMES, 1),
        (["/some/where/b/1.jpg"], NAMES, 0),
        (["/some/a/1.jpg", "/some/b/1.jpg"], NAMES, 1),
        (["/some/a/1.jpg", "/some/b/1.jpg"], ["1", "1.jpg"], 0),
        (["/some/where/11.jpg"], ["1", "1.jpg"], 0),
    ],
)
def test_a_path_in_the_file_is_joined_by_its_end(
    images: list[str], names: list[str], joined: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number, counts = found(table(tmp_path, *({"image": image} for image in images)), names)
    assert number == joined
    warned = capsys.readouterr().err
    assert (f"{images[0]!r} there" in warned and repr(names[1]) in warned) != joined
    ambiguous = "images that several paths of the file end with: not joined"
    assert (ambiguous in counts) == (len(images) == 2 and not joined)
