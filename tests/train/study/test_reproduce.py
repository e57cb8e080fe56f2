"""The three roads in small: files of the authors' own formats in their folders, every step of every road."""

import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import open_clip
import pytest
import torch
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.train.cli import app
from macco.train.clip.write import export_open_clip
from macco.train.evaluation.manifest import load_benchmark_manifest
from macco.train.study.reproduce.published import BACKBONES, tables
from macco.train.study.reproduce.table import OURS, THEIRS, verdict
from tests.support import ROOT
from tests.support.bundled import TSV, write_bundle, write_sugar_crepe, write_tsv
from tests.support.commands import Command

TAGGER = str(ROOT / "preprocess/models/en_caption")
# ViT-B/32's image tower by its width and patches, of one layer: the published columns are beside it.
CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "patch_size": 32, "width": 768, "head_width": 64, "layers": 1, "mlp_ratio": 0.25
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}  # fmt: skip
TRAINING = [
    "steps=2", "data.batch_size=8", "data.workers=0", "device=cpu", "method.text_depth=1", "method.image_depth=1",
    "optimizer.warmup=1", "save_every=1",
]  # fmt: skip
COMMON = ["--device", "cpu", "--workers", "0", "--batch-size", "16", "--tagger", TAGGER]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' datasets/: all benchmarks, the TSV, and a random checkpoint as their code writes it."""
    root = tmp_path_factory.mktemp("authors") / "datasets"
    write_bundle(root)
    write_tsv(root)
    torch.manual_seed(0)
    state = open_clip.model.CLIP(**CLIP).state_dict()
    (root / "MACCO/vitb32").mkdir(parents=True)
    torch.save(
        {"epoch": 5, "name": "train_macco_clip_coco", "state_dict": state}, root / "MACCO/vitb32/epoch_5.pt"
    )
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The TSV with its images, and one benchmark."""
    root = tmp_path / "datasets"
    write_tsv(root)
    write_sugar_crepe(root)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What training starts from, instead of OpenAI's weights."""
    folder = tmp_path_factory.mktemp("start") / "clip"
    torch.manual_seed(1)
    export_open_clip(open_clip.model.CLIP(**CLIP, quick_gelu=True), folder, CLIP)
    return [f"model.name={folder}", "model.pretrained="]


@pytest.fixture(scope="module")
def walked(data: Path, start: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The road of the TSV on two seeds and all benchmarks, walked to its end; and the command."""
    out = tmp_path_factory.mktemp("walked") / "out"
    arguments = ["tsv", "--data", str(data), "--out", str(out), "--seeds", "0,1", *COMMON, *TRAINING, *start]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return out, arguments


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["column"]): row for row in json.loads((out / "table.json").read_text())}


def by_sql(out: Path) -> dict[tuple[str, str, str], float]:
    connection = duckdb.connect()
    connection.execute((out / "table.sql").read_text())
    found = connection.execute('SELECT run, activation, "column", percent FROM figures').fetchall()
    return {tuple(row[:3]): row[3] for row in found}


def times(out: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob(pattern)}


def test_the_road_of_the_checkpoint(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("checkpoint", "--data", str(data), "--out", str(out), *COMMON)
    assert result.exit_code == 0, result.output
    found = rows(out)
    assert {column for _, column in found} == set(tables().columns)
    assert {row["backbone"] for row in found.values()} == {"ViT-B-32"}
    sql = by_sql(out)
    compared = 0
    for (model, column), row in found.items():
        assert row["verdict"]
        for counting, values in row["values"].items():
            assert set(values) == {"gelu", "quick_gelu"}
            for activation, one in values.items():
                name = column if counting == OURS else f"{column}, {counting}"
                assert one["percent"] == pytest.approx(sql[model, activation, name]), name
                assert one["low"] <= one["percent"] <= one["high"]
                assert one["used"] == one["in_files"]
                compared += 1
    assert compared == len(sql) == 2 * (len(tables().columns) + 2)
    assert len(found["vitb32-epoch_5", "ARO Rel"]["values"]) == 2
    page = (out / "table.md").read_text()
    assert "QuickGELU" in page
    assert "73.1" in page
    # The same command goes on: what was scored is not scored again, but where the data is another.
    before = times(out / "eval", "items.parquet")
    picture = data / "sugar-crepe/val2017/000000000001.jpg"
    picture.rename(data / "away.jpg")
    try:
        assert run("checkpoint", "--data", str(data), "--out", str(out), *COMMON).exit_code == 0
    finally:
        (data / "away.jpg").rename(picture)
    after = times(out / "eval", "items.parquet")
    assert {path.parent.name for path in before if before[path] != after[path]} == {"sugarcrepe", "valse"}
    lost = rows(out)["vitb32-epoch_5", "SugarCrepe Rel"]["values"][OURS]["gelu"]
    assert (lost["used"], lost["in_files"]) == (14, 21)
    assert lost["percent"] == pytest.approx(by_sql(out)["vitb32-epoch_5", "gelu", "SugarCrepe Rel"])
    assert "sugarcrepe: 2 images, 3 when it was first seen" in (out / "table.md").read_text()
    # Another file of that name is not taken for the one that was imported.
    other = tmp_path / "vitb32-epoch_5.pt"
    other.write_bytes(b"x")
    with pytest.raises(UserError, match=r"is of another vitb32-epoch_5\.pt"):
        run("checkpoint", "--data", str(data), "--out", str(out), "--checkpoint", str(other), *COMMON)


def test_a_dry_run_writes_nothing_and_says_how_to_get_what_is_missing(small: Path, tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--dry-run", *COMMON]
    result = run("tsv", "--data", str(small), "--seeds", "0,1", *arguments)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out").exists()
    assert f"there    {TSV}: 40 rows, 38 images; 110,000 rows expected" in result.output
    assert "there    sugarcrepe: 3 images, 7 files" in result.output
    assert "1.0 h  train released-vitb32-seed1" in result.output
    assert "MISSING  winoground (not needed): accept the licence" in result.output
    assert "GB will be written" in result.output
    (tmp_path / "empty").mkdir()
    for road, line in (
        ("checkpoint", "hf download hiker-lw/MACCO"),
        ("tsv", "git clone --depth 1 https://github.com/hiker-lw/MACCO"),
        ("extract", "groundingdino_swinb_cogcoor.pth"),
    ):
        result = run(road, "--data", str(tmp_path / "empty"), *arguments)
        assert result.exit_code == 0, result.output
        assert line in result.output
        assert "hf download --repo-type dataset hiker-lw/VL-Compositionality-Benchmarks" in result.output
        with pytest.raises(UserError, match="is not there"):
            run(road, "--data", str(tmp_path / "empty"), "--out", str(tmp_path / "out"))


@pytest.mark.processes
def test_the_road_of_the_tsv_on_two_seeds(walked: tuple[Path, list[str]]) -> None:
    out, arguments = walked
    found = rows(out)
    assert set(found) == {("released-vitb32", column) for column in tables().columns}
    sql = by_sql(out)
    for (model, column), row in found.items():
        for activation, one in row["values"][OURS].items():
            seeds = [sql[f"{model}-seed{seed}", activation, column] for seed in (0, 1)]
            assert one["percent"] == pytest.approx(sum(seeds) / 2)
            assert one["seeds"] == 2
            assert one["sd"] is not None
    assert found["released-vitb32", "SugarCrepe Rel"]["band"] == {"mean": 76.1, "sd": 0.95}
    assert "rows of the store: 40 ok" in (out / "table.md").read_text()
    assert "scale_lr: 0.001" in (out / "runs/released-vitb32-seed1/config.yaml").read_text()
    before = times(out, "*.safetensors")
    assert run(*arguments).exit_code == 0
    assert before == times(out, "*.safetensors")
    with pytest.raises(UserError, match=r"begun with optimizer\.warmup"):
        run(*arguments, "optimizer.warmup=0")


@pytest.mark.processes
def test_the_road_of_an_own_extraction(small: Path, start: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = ["--detector", "tiny", "--parser", "en_caption", "--extract", "--workers 0 --device cpu"]
    result = run("extract", "--data", str(small), "--out", str(out), *own, *COMMON, *TRAINING, *start)
    assert result.exit_code == 0, result.output
    compared = json.loads((out / "compare.json").read_text())
    assert compared["rows"] == {"tsv": 40, "bad": 0, "shared": 40}
    assert compared["spans: attribute"]["share_of_theirs"] == 1
    assert compared["spans: relation"]["equal"] == 40
    assert compared["boxes: relation"]["theirs"] == 32
    assert len(rows(out)) == 2


@pytest.mark.processes
def test_rows_without_their_image_are_counted_before_anything_is_made(
    small: Path, start: list[str], tmp_path: Path
) -> None:
    for path in sorted((small / "coco/val2014").iterdir())[:3]:
        path.unlink()
    arguments = ["tsv", "--data", str(small), "--out", str(tmp_path / "out"), *COMMON, *TRAINING, *start]
    with pytest.raises(UserError, match="the images of 4 of 40 rows are not under"):
        run(*arguments)
    assert not (tmp_path / "out/store").exists()
    assert run(*arguments, "--incomplete").exit_code == 0
    statuses = "SELECT status, count(*) FROM samples GROUP BY 1"
    found = connect(Store.open(str(tmp_path / "out/store"))).execute(statuses).fetchall()
    assert dict(found) == {"ok": 36, "missing_image": 4}


def test_the_published_figures_are_those_of_the_benchmarks_manifests() -> None:
    names = {"CLIP": "CLIP (MACCO paper)", "fine-tuned": "CLIP fine-tuned (MACCO paper)", "ViT-B-32": "MACCO"}
    compared = 0
    for column in tables().columns.values():
        assert {"CLIP", "fine-tuned", BACKBONES[0]} <= set(column.published)
        if len(column.of) == 1:
            ((benchmark, figure),) = column.of.items()
            published = load_benchmark_manifest(benchmark).published[figure]
            for own, other in names.items():
                assert column.published[own] == published[other]
                compared += 1
    assert compared == 24


def test_a_verdict_names_each_way_to_read_a_figure_that_is_the_published_one() -> None:
    def one(percent: float | None, matches: bool | None) -> dict[str, Any]:
        return {"percent": percent, "matches": matches}

    ours = {"gelu": one(73.0, True), "quick_gelu": one(75.0, False)}
    theirs = {"gelu": one(73.2, True), "quick_gelu": one(74.0, False)}
    far = {"quick_gelu": one(75.0, False), "gelu": one(72.0, False)}
    assert verdict({OURS: ours, THEIRS: theirs}, 73.1) == f"gelu; gelu, {THEIRS}"
    assert verdict({OURS: far}, 73.1) == "none; nearest gelu (-1.1)"
    assert verdict({OURS: {"gelu": one(None, None)}}, 73.1) == "undefined: items are missing"
    assert verdict({OURS: ours}, None) == "none is published"


def wait_for(path: Path, alive: Callable[[], bool]) -> None:
    while alive() and not path.exists():
        time.sleep(0.02)


def ends_as(out: Path, walked: Path) -> None:
    """A road of one seed has come to the figures of the one that nothing disturbed."""
    found, whole = by_sql(out), by_sql(walked)
    assert {column for _, _, column in found} == {"SugarCrepe Rel", "SugarCrepe Att"}
    assert found == pytest.approx({key: whole[key] for key in found}, abs=1e-9)


@pytest.mark.processes
def test_a_road_that_is_stopped_or_killed_goes_on(
    small: Path, start: list[str], walked: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Killed in its training, asked to stop in its evaluation: the end is that of one that nothing disturbed."""
    out = tmp_path / "out"
    own = ["tsv", "--data", str(small), *COMMON, *TRAINING, *start, "--out", str(out)]
    process = Command("macco-train", "reproduce", *own)
    wait_for(out / "runs/released-vitb32-seed0/checkpoints/latest.pt", lambda: process.poll() is None)
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (0, -signal.SIGKILL)

    def stop() -> None:
        wait_for(out / "eval", lambda: not over.is_set())
        os.kill(os.getpid(), signal.SIGTERM)

    # The signal is this process's own, so that it need not start another.
    before, over = signal.signal(signal.SIGTERM, signal.SIG_IGN), threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        assert run(*own).exit_code in (0, 128 + signal.SIGTERM)
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert run(*own).exit_code == 0
    ends_as(tmp_path / "out", walked[0])


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """What a full disk is to a program: a file grows so far, in this process and in those that it starts."""
    _, most = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.processes
def test_a_road_on_a_full_disk_goes_on_once_there_is_room(
    small: Path,
    start: list[str],
    walked: tuple[Path, list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    own = ["tsv", "--data", str(small), "--out", str(out), *COMMON, *TRAINING, *start]
    with no_file_over(2_000), pytest.raises(UserError, match="macco-prep import ended with exit code 2"):
        run(*own)
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "cannot write to" in line
    assert "File too large" in line
    with no_file_over(100_000), pytest.raises(UserError, match=r"cannot write .*latest\.pt"):
        run(*own)
    assert Store.open(str(out / "store")).committed() == {f"{TSV.removesuffix('.tsv')}-00000"}
    assert run(*own).exit_code == 0
    ends_as(out, walked[0])
    shutil.rmtree(out / "eval")
    with no_file_over(3_500), pytest.raises(UserError, match=r"cannot write .*eval"):
        run(*own)
    assert run(*own).exit_code == 0
    ends_as(out, walked[0])
    assert not list(out.rglob(".tmp-*"))
