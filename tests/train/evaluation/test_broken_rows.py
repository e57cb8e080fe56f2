"""A file of a benchmark with one broken row is refused, and the row is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.benchmarks.base import read_csv, read_lines
from macco.train.evaluation.manifest import Places
from tests.support.official import mmvp, negbench
from tests.support.ruled import write
from tests.train.evaluation.test_scoring import pairs_file
from tests.train.evaluation.test_scoring_later import write_csv


def refused(folder: Path, name: str) -> str:
    with pytest.raises(UserError, match="has not the published form") as told:
        BENCHMARKS[name](Places(folder)).items()
    return str(told.value).partition(" has not")[0]


def winoground(folder: Path, *rows: Any, mark: str = "") -> None:
    file = folder / "winoground" / "examples.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text(mark + "\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows))


def test_the_row_of_a_dictionary_is_named_by_its_key(tmp_path: Path) -> None:
    rows = pairs_file("++++")
    for broken in ({"filename": "2.jpg"}, None):
        write(tmp_path, "sugarcrepe", "swap_obj", rows | {"2": broken})
        assert refused(tmp_path, "sugarcrepe").endswith(", row 2,")


def test_the_line_of_json_lines_is_named(tmp_path: Path) -> None:
    good = {"id": 0, "caption_0": "a", "caption_1": "b", "image_0": "x", "image_1": "y"}
    for broken in ({"id": 1, "caption_0": "a"}, "{"):
        winoground(tmp_path, good, broken, good)
        assert refused(tmp_path, "winoground").endswith(", line 2,")


def test_the_row_of_a_csv_is_named(tmp_path: Path) -> None:
    rows = [negbench(i, 0, "positive") for i in range(3)]
    rows[1]["correct_answer"] = "none"
    write_csv(tmp_path, "negbench", "coco", rows)
    assert refused(tmp_path, "negbench").endswith(", row 1,")
    pairs = [mmvp(i, "Color")[k] for i in range(2) for k in range(2)]
    write_csv(tmp_path, "mmvp_vlm", "pairs", pairs[:3])
    assert refused(tmp_path, "mmvp_vlm").endswith(", pair 1,")


def test_a_mark_of_the_byte_order_is_no_part_of_a_file(tmp_path: Path) -> None:
    good = {"id": 0, "caption_0": "a", "caption_1": "b", "image_0": "x", "image_1": "y"}
    winoground(tmp_path, good, mark="\ufeff")
    assert len(BENCHMARKS["winoground"](Places(tmp_path)).items()) == 1
    (tmp_path / "a.csv").write_text("\ufeffa,b\n1,2\n")
    assert list(read_csv(tmp_path / "a.csv")) == [{"a": "1", "b": "2"}]
    (tmp_path / "a.jsonl").write_text('\ufeff{"a": 1}\n')
    assert list(read_lines(tmp_path / "a.jsonl")) == [{"a": 1}]
