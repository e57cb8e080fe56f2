"""What a corpus takes is reckoned from what a sample took."""

import json
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from macco.preprocess.cli import main
from macco.preprocess.look.bench import size


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    own = ("bench", "--device", "cpu", "--detector", "none", "--json", *arguments)
    monkeypatch.setattr(sys, "argv", ["macco-prep", *own])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_plan_is_of_the_rates_of_the_sample(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench(monkeypatch, "--images", "12", "--pairs", "5000000", "--workers", "4") == 0
    found = json.loads(capfd.readouterr().out)
    sample, plan = found["sample"], found["plan"]
    assert sample["of"] == "drawn scenes"  # not a folder that is gone
    assert (sample["images"], sample["captions"], sample["statuses"]) == (12, 60, {"ok": 60})
    assert (plan["pairs"], plan["images"], plan["workers"]) == (5_000_000, 1_000_000, 4)
    assert plan["hours"] == pytest.approx(5_000_000 / found["rates"]["captions/s"] / 4 / 3600, rel=0.05)
    assert plan["cache of pixels"] == "49.2 GB"  # scenes are 128 x 128, and no copy is larger than its image
    assert plan["store"].endswith((" MB", " GB"))


def test_a_sample_without_a_good_image_makes_no_plan(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, data in (("0.jpg", b"no picture"), ("0.txt", b"a dog")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    assert bench(monkeypatch, "--shards", str(tmp_path / "*.tar")) == 2
    errors = capfd.readouterr().err
    assert "can be used" in errors
    assert "image_unsupported" in errors


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0.0 MB"), (2.5e6, "2.5 MB"), (3e9, "3.0 GB"), (4.2e15, "4,200.0 TB")]
)
def test_bytes_are_told_in_a_unit_that_people_read(count: float, told: str) -> None:
    assert size(count) == told
