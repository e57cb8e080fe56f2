"""What an earlier version wrote is opened by this one: stores, caches, unfinished runs, exported models."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pyarrow.parquet as pq
import pytest
import torch
import typer
from safetensors.torch import load_file
from transformers import CLIPModel
from typer.testing import CliRunner

from macco.pipeline.views import VIEWS
from macco.preprocess.cli import app as macco_prep
from macco.train.cli import app as macco_train
from tests.support.pages import held

FORMER = Path(__file__).parent / "fixtures" / "v0.1"
RUNS = ("macco", "joint")


def give(app: typer.Typer, *arguments: object) -> str:
    """Give a command, which must succeed; what it said."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as working folder: the paths in its configurations are relative."""
    folder = shutil.copytree(FORMER, tmp_path / "former")
    monkeypatch.chdir(folder)
    return folder


def test_a_store_is_asked_and_copied(former: Path) -> None:
    status = json.loads(give(macco_prep, "status", "store", "--json"))
    assert status["shards"] == {"committed": 2, "failed": {}}
    assert status["samples"] == {"ok": 60}
    stats = json.loads(give(macco_prep, "stats", "store", "--json"))
    assert {row["kind"] for row in stats["concepts"]} == {"object", "attribute", "relation"}
    give(macco_prep, "compact", "store", "--out", "small")
    sizes = []
    for store in ("store", "small"):
        counts = {}
        for view in VIEWS:
            give(
                macco_prep, "sql", store, f"SELECT * FROM {view}", "--format", "parquet", "--out", "x.parquet"
            )
            counts[view] = pq.read_metadata("x.parquet").num_rows
        sizes.append(counts)
    (whole, compacted), written = sizes, former / "store"
    for table in ("samples", "concepts", "boxes"):
        files = sorted((written / table).glob("0*.parquet"))
        assert whole[table] == compacted[table] == sum(pq.read_metadata(file).num_rows for file in files) > 0
    assert whole["shards"] == 2
    assert whole | {"shards": 0} == compacted | {"shards": 0}
    assert whole["images"] == 12
    assert whole["negatives"] == sum(
        pq.read_metadata(file).num_rows for file in (written / "negatives").glob("0*.parquet")
    )
    assert whole["concept_boxes"] == compacted["concept_boxes"] > whole["boxes"]
    wrong = 'SELECT concept_id FROM concepts JOIN samples USING (sample_id) WHERE caption[start + 1:"end"] <> text'
    give(macco_prep, "sql", "store", wrong, "--format", "parquet", "--out", "x.parquet")
    assert pq.read_metadata("x.parquet").num_rows == 0


def test_a_store_is_exported_and_viewed(former: Path) -> None:
    give(macco_prep, "export", "store", "--out", "coco.json")
    coco = json.loads(Path("coco.json").read_text())
    assert len(coco["images"]) == 12
    assert len(coco["annotations"]) > 12
    give(macco_prep, "export", "store", "--out", "train.tsv", "--format", "macco-tsv")
    with open("train.tsv", newline="") as stream:
        captions = [row["title"] for row in csv.DictReader(stream, delimiter="\t")]
    stored = [
        pq.read_table(path)["caption"].to_pylist() for path in sorted(former.glob("store/samples/0*.parquet"))
    ]
    assert sorted(captions) == sorted(caption for shard in stored for caption in shard)
    give(macco_prep, "view", "store", "--out", "view.html", "--limit", "3")
    figures = held(Path("view.html"))
    assert [bool(one["src"]) for one in figures] == [False] * 3  # its images are not here, its captions are
    assert all(caption["caption"] for one in figures for caption in one["captions"])


def test_negatives_are_made_in_a_store(former: Path) -> None:
    shutil.rmtree("store/negatives")
    said = give(macco_train, "negatives", "store")
    made = [pq.read_metadata(path).num_rows for path in sorted(former.glob("store/negatives/0*.parquet"))]
    assert len(made) == 2
    assert f"{sum(made)} negatives in store" in said
    assert min(made) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_to_the_same_numbers(name: str, former: Path) -> None:
    assert [row["step"] for row in rows(former / name / "metrics.jsonl")][-1] == 2
    give(macco_train, "run", "--out", name, "device=cpu")
    done, whole = rows(former / name / "metrics.jsonl"), rows(FORMER / f"{name}.whole.jsonl")
    assert [row["step"] for row in done] == [row["step"] for row in whole]
    for row, expected in zip(done, whole, strict=True):
        for key, value in expected.items():
            if key != "samples_per_second":
                # Pictures are resized by other arithmetic since: some pixels differ by a level.
                assert row[key] == pytest.approx(value, rel=1e-3, abs=1e-6), (row["step"], key)
    assert "<polyline" in Path(give(macco_train, "report", name).strip()).read_text()
    give(macco_train, "export", name, "--out", "again")
    exported = sorted(FORMER.glob(f"exported/{name}/**/*.safetensors"))
    assert exported
    for file in exported:
        now, then = (
            load_file(former / "again" / file.relative_to(FORMER / "exported" / name)),
            load_file(file),
        )
        assert now.keys() == then.keys()
        for key in then:
            torch.testing.assert_close(now[key], then[key], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_exported_models_open(tmp_path: Path) -> None:
    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{FORMER / 'exported' / 'macco'}")
    other = CLIPModel.from_pretrained(FORMER / "exported" / "hf").eval()
    torch.manual_seed(0)
    side = other.config.vision_config.image_size
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        one, two = clip.eval().encode_image(images), other.vision_model(images).pooler_output
        torch.testing.assert_close(one, other.visual_projection(two), rtol=1e-4, atol=1e-5)
    give(macco_prep, "demo", tmp_path / "data" / "demo", "--benchmark", "--split", "val", "--images", "2")
    for name in RUNS:
        asked = ["--data", tmp_path / "data", "--benchmark", "demo", "--device", "cpu", "--workers", "0"]
        give(macco_train, "eval", FORMER / "exported" / name, *asked, "--out", tmp_path / name)
        (found,) = json.loads((tmp_path / name / "report.json").read_text())["benchmarks"]
        assert found["benchmark"] == "demo"
        assert sum(count["used"] for count in found["counts"]) > 0
