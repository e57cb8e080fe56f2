"""Whether two makings are one: by what models hold, not by where they lie."""

from typing import Any

import pytest

from macco.pipeline.settings import difference

MADE = {"detector": "boxes:b/good.parquet", "detector_fingerprint": "boxes:1", "dtype": "fp32"}


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ({}, None),
        ({"detector": "boxes:/abs/good.parquet"}, None),
        ({"detector": "boxes:/abs/good.parquet", "detector_fingerprint": "boxes:2"}, "detector"),
        ({"detector_fingerprint": "boxes:2"}, "detector_fingerprint"),
        ({"detector": "transformers:b/good.parquet"}, "detector"),
        ({"dtype": "bf16"}, "dtype"),
        ({"detector": None}, "detector"),
        ({"nms_iou": 0.5}, "nms_iou"),
    ],
)
def test_settings_differ_by_name(asked: dict[str, Any], other: str | None) -> None:
    assert difference(MADE, MADE | asked) == other
    assert difference(MADE | asked, MADE) == other


def test_a_model_without_a_fingerprint_is_its_name() -> None:
    assert difference({"parser": "graphs:a"}, {"parser": "graphs:b"}) == "parser"


def test_another_package_s_argument_need_be_no_file() -> None:
    version = {"detector_fingerprint": "version 1"}
    assert difference({"detector": "own:one"} | version, {"detector": "own:two"} | version) == "detector"
