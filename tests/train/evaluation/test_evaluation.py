"""Encoding, whole runs and comparison, with small random models and drawn images."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.clip.load import load_clip
from macco.train.clip.write import export_open_clip
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.compare import compare, write_comparison
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Picture
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.registry import expand, figures_of
from macco.train.evaluation.report import write_report
from macco.train.evaluation.run import run_benchmark
from tests.support.evaluated import EXCERPTS, draw, pictures_of, small_clip
from tests.support.rows import record, tables
from tests.support.ruled import against, run, write
from tests.support.scored import TableScorer

FULL = os.environ.get("MACCO_BENCHMARKS")  # a folder with whole annotation files: sugarcrepe/, valse/, ...


def test_counts_used_are_the_counts_of_the_files(data: Places, encoder: DualEncoder) -> None:
    for name in ("sugarcrepe", "sugarcrepe_pp", "valse", "cola"):
        report = run_benchmark(encoder, BENCHMARKS[name](data)).report
        for one in report["counts"]:
            rows = json.loads((data.file(load_benchmark_manifest(name), one["subset"])).read_text())
            rows = list(rows.values()) if isinstance(rows, dict) else rows
            kept = [r for r in rows if name != "valse" or r["mturk"]["caption"] >= 2]
            assert one["used"] == one["in_files"] == len(kept)
        assert report["statuses"] == {"ok": sum(one["used"] for one in report["counts"])}
    assert run_benchmark(encoder, BENCHMARKS["whatsup"](data)).report["counts"][0]["used"] == 8


@pytest.mark.skipif(FULL is None, reason="MACCO_BENCHMARKS does not say where whole annotation files lie")
def test_whole_files_hold_the_expected_counts() -> None:
    places = Places(Path(str(FULL)))
    looked = 0
    for name, kind in BENCHMARKS.items():
        manifest = load_benchmark_manifest(name)
        known = [s for s, f in manifest.files.items() if f.items is not None]
        there = [s for s in known if (places.folder(name) / manifest.files[s].path).is_file()]
        if there:
            benchmark = kind(places)
            counts = Counter(item.subset for item in benchmark.items())
            assert {s: counts[s] for s in there} == {s: manifest.files[s].items for s in there}
            looked += 1
    assert looked


def test_scores_are_cosines_and_figures_follow_from_the_item_file(
    data: Places, encoder: DualEncoder, loaded: Any, tmp_path: Path
) -> None:
    outcomes = [run_benchmark(encoder, BENCHMARKS[n](data)) for n in ("sugarcrepe", "cola", "sugarcrepe_pp")]
    write_report(tmp_path / "run", {"model": "small"}, outcomes, ["x: not there"])
    file = tmp_path / "run" / "items.parquet"

    def percent(rule: str, benchmark: str) -> float:
        by_subset = f"SELECT avg(({rule})::INT) AS m FROM '{file}' WHERE benchmark = ? GROUP BY subset"
        query = f"SELECT 100 * avg(m) FROM ({by_subset})"
        return float(duckdb.execute(query, [benchmark]).fetchall()[0][0])

    report = json.loads((tmp_path / "run" / "report.json").read_text())
    found = {(b["benchmark"], f["figure"]): f["percent"] for b in report["benchmarks"] for f in b["figures"]}
    assert percent("scores[1] > scores[2]", "sugarcrepe") == pytest.approx(found["sugarcrepe", "macro"])
    cola = "scores[1] > scores[3] AND scores[4] > scores[2]"
    assert percent(cola, "cola") == pytest.approx(found["cola", "accuracy"])
    text = "text_scores[1] > text_scores[2] AND text_scores[1] > text_scores[3]"
    assert percent(text, "sugarcrepe_pp") == pytest.approx(found["sugarcrepe_pp", "text"])

    item = BENCHMARKS["cola"](data).items()[0]
    with torch.no_grad():
        pixels = torch.stack([loaded.preprocess(Image.open(p.source).convert("RGB")) for p in item.pictures])
        images = loaded.model.encode_image(pixels, normalize=True)
        texts = loaded.model.encode_text(loaded.tokenizer(list(item.captions)), normalize=True)
    assert outcomes[1].items["scores"][0].as_py() == pytest.approx(
        (images @ texts.T).flatten().tolist(), abs=1e-5
    )
    page = (tmp_path / "run" / "report.md").read_text()
    assert "| macro |" in page
    assert "x: not there" in page


def test_each_picture_and_caption_is_encoded_once(data: Places, loaded: Any) -> None:
    shown: Counter[bytes] = Counter()
    read: Counter[str] = Counter()

    def preprocess(image: Image.Image) -> torch.Tensor:
        shown[image.tobytes()] += 1
        return torch.as_tensor(loaded.preprocess(image))

    def tokenizer(captions: list[str]) -> torch.Tensor:
        read.update(captions)
        return torch.as_tensor(loaded.tokenizer(captions))

    encoder = DualEncoder(loaded.model, preprocess, tokenizer, batch_size=4)
    for name in ("sugarcrepe", "sugarcrepe_pp", "sugarcrepe"):
        run_benchmark(encoder, BENCHMARKS[name](data))
    both = [item for name in ("sugarcrepe", "sugarcrepe_pp") for item in BENCHMARKS[name](data).items()]
    assert set(shown.values()) == set(read.values()) == {1}
    assert len(shown) == len({picture for item in both for picture in item.pictures})
    assert set(read) == {caption for item in both for caption in item.captions}


def test_missing_and_damaged_images_are_counted(data: Places, encoder: DualEncoder) -> None:
    first, second, *_ = dict.fromkeys(p.source for p in pictures_of("cola", data))
    Path(first).unlink()
    Path(second).write_bytes(Path(second).read_bytes()[:60])
    items = BENCHMARKS["cola"](data).items()
    report = run_benchmark(encoder, BENCHMARKS["cola"](data)).report
    touched = sum(any(p.source in (first, second) for p in item.pictures) for item in items)
    assert report["counts"][0]["used"] == len(items) - touched
    assert sum(n for status, n in report["statuses"].items() if status != "ok") == touched


def test_without_any_image_figures_are_undefined_and_the_download_is_named(
    tmp_path: Path, encoder: DualEncoder
) -> None:
    for name in ("cola", "sugarcrepe_pp"):
        (tmp_path / name).symlink_to(EXCERPTS / name)
        report = run_benchmark(encoder, BENCHMARKS[name](Places(tmp_path))).report
        assert {one["percent"] for one in report["figures"]} == {None}
        assert any("image files are not in" in note and "http" in note for note in report["notes"])


def test_crops_and_parquet_cells(tmp_path: Path, encoder: DualEncoder) -> None:
    path = draw(tmp_path / "whole.png", 1, (40, 30))
    with Image.open(path) as image:
        image.crop((5, 3, 25, 23)).save(tmp_path / "part.png")
    cells = [
        {"bytes": path.read_bytes(), "path": ""},
        {"bytes": (tmp_path / "part.png").read_bytes(), "path": ""},
    ]
    pq.write_table(pa.table({"image": cells}), tmp_path / "cells.parquet")
    whole, crop, part, cell = encoder.image_features(
        [
            Picture(str(path)),
            Picture(str(path), crop=(5, 3, 20, 20)),
            Picture(str(tmp_path / "part.png")),
            Picture(str(tmp_path / "cells.parquet"), "image/1"),
        ]
    )
    assert crop == pytest.approx(part, abs=1e-6)
    assert cell == pytest.approx(part, abs=1e-6)
    assert np.abs(whole - part).max() > 1e-3
    assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-5)


@pytest.mark.processes
def test_workers_give_the_same_features(data: Places, loaded: Any) -> None:
    pictures = pictures_of("sugarcrepe", data)
    alone = DualEncoder(*loaded, batch_size=4).image_features(pictures)
    helped = DualEncoder(*loaded, batch_size=4, workers=1).image_features(pictures)
    assert np.array_equal(alone, helped)


def test_compare_pairs_the_items_of_two_runs(data: Places, tmp_path: Path) -> None:
    for number in (0, 1):
        export_open_clip(small_clip(seed=number), tmp_path / f"m{number}")
        encoder = DualEncoder(*load_clip(str(tmp_path / f"m{number}")), batch_size=8)
        if number:  # an image that only the first run could read
            Path(pictures_of("cola", data)[0].source).unlink()
        outcomes = [run_benchmark(encoder, BENCHMARKS[n](data)) for n in ("sugarcrepe", "cola", "whatsup")]
        write_report(tmp_path / f"r{number}", {"model": "small"}, outcomes, [])
    rows = compare([tmp_path / "r0", tmp_path / "r1"], lambda name: figures_of(name, data))
    found = {(row["benchmark"], row["figure"]): row for row in rows}
    micro = found["sugarcrepe", "micro"]
    by_sql = duckdb.execute(
        """SELECT 100 * avg(b.answers['right']::INT - a.answers['right']::INT),
                  sum((b.answers['right'] AND NOT a.answers['right'])::INT)
           FROM read_parquet($1) a JOIN read_parquet($2) b USING (benchmark, subset, item)
           WHERE benchmark = 'sugarcrepe'""",
        [str(tmp_path / "r0" / "items.parquet"), str(tmp_path / "r1" / "items.parquet")],
    ).fetchall()[0]
    assert (micro["difference"], micro["gained"]) == pytest.approx(by_sql)
    assert micro["test"] == "McNemar"
    assert found["sugarcrepe", "macro"]["test"] == "paired bootstrap"
    assert found["sugarcrepe", "macro"]["low"] <= found["sugarcrepe", "macro"]["difference"]
    assert found["cola", "accuracy"]["units"] < 4
    with pytest.raises(UserError, match="two runs"):
        compare([tmp_path / "r0"], lambda name: figures_of(name, data))


def test_compare_knows_what_an_unread_image_leaves_out(tmp_path: Path) -> None:
    def save(name: str, benchmark: str, scorer: TableScorer) -> Path:
        write_report(tmp_path / name, {"model": name}, [run(tmp_path, benchmark, scorer)], [])
        return tmp_path / name

    def rows(benchmark: str, *runs: Path) -> dict[str, dict[str, Any]]:
        found = compare(runs, lambda name: figures_of(name, Places(tmp_path)))
        assert {row["run"] for row in found} == {str(runs[1])}
        return {row["figure"]: row for row in found if row["benchmark"] == benchmark}

    box = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 4}
    items = [
        {"image_path": f"{i}.jpg", "true_caption": f"yes {i}", "false_caption": f"no {i}"} | box
        for i in range(51)
    ]
    relations = [row | {"relation_name": "on" if i < 2 else "under"} for i, row in enumerate(items[:4])]
    write(tmp_path, "aro_relation", "relation", relations)
    scorer = against("++--")
    whole = save("a", "aro_relation", scorer)
    scorer.missing = ["2.jpg", "3.jpg"]  # all of "under"
    found = rows("aro_relation", whole, save("b", "aro_relation", scorer))
    assert [found[name]["percent"] for name in ("macro", "on", "under")] == [None, 100, None]
    write_comparison([*found.values()], "a", tmp_path / "c")
    assert "| aro_relation: macro |" in (tmp_path / "c" / "compare.md").read_text()

    attributes = [row | {"attributes": ["a", "b"] if i < 25 else ["c", "d"]} for i, row in enumerate(items)]
    write(tmp_path, "aro_attribution", "attribution", attributes)
    scorer = against("-" * 25 + "+" * 26)
    whole = save("d", "aro_attribution", scorer)
    scorer.missing = ["0.jpg"]  # a class of 25 stays one
    assert rows("aro_attribution", whole, save("e", "aro_attribution", scorer))["macro"]["percent"] == 50

    write(
        tmp_path,
        "aro_relation",
        "relation",
        [row | {"true_caption": f"no {i}"} for i, row in enumerate(relations)],
    )
    with pytest.raises(UserError, match="other captions"):
        rows("aro_relation", tmp_path / "a", save("f", "aro_relation", against("++--")))
    (tmp_path / "a" / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="damaged"):
        rows("aro_relation", tmp_path / "a", tmp_path / "b")


def test_some_missing_images_are_counted_by_collection(data: Places, encoder: DualEncoder) -> None:
    first, *_ = dict.fromkeys(p.source for p in pictures_of("whatsup", data))
    Path(first).unlink()
    notes = run_benchmark(encoder, BENCHMARKS["whatsup"](data)).report["notes"]
    assert any("1 of 8 image files are not in" in note and "controlled_images" in note for note in notes)


def test_names_of_benchmarks() -> None:
    assert expand(["cola", "classify:x", "cola"]) == ["cola", "classify:x"]
    assert set(BENCHMARKS) < set(expand(["all"]))
    with pytest.raises(UserError, match="no benchmark is called"):
        expand(["colla"])


def test_command_line(data: Places, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from macco.train.cli_evaluation import app

    where = ["--data", str(tmp_path), "--path", f"cola_images={tmp_path / 'c'}"]
    out = str(tmp_path / "out")
    asked = ["--benchmark", "cola", "--benchmark", "winoground", "--workers", "0", "--activation", "both"]
    assert app(["eval", str(folder), "--out", out, *where, *asked], standalone_mode=False) == 1
    printed = capsys.readouterr()
    assert printed.out.count("cola: accuracy") == 2
    assert "accept the licence" in printed.err
    both = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {Path(row["run"]).name for row in both} == {"quick_gelu"}
    reports = [json.loads((tmp_path / "out" / a / "report.json").read_text()) for a in ("gelu", "quick_gelu")]
    assert [report["activation"] for report in reports] == ["gelu", "quick_gelu"]
    (tmp_path / "winoground").mkdir()
    # One damaged file does not cost the others.
    (tmp_path / "winoground" / "examples.jsonl").write_text("<html>")
    (tmp_path / "file").write_text("")
    assert app(["eval", str(folder), "--out", out, *where, *asked[:-2]], standalone_mode=False) == 1
    assert "not run: winoground" in capsys.readouterr().err
    assert "published form" in json.loads((tmp_path / "out" / "report.json").read_text())["missing"][0]
    for wrong in (
        ["--templates", "x"],
        ["--device", "x"],
        ["--device", "cuda:99"],
        ["--out", str(tmp_path / "file")],
    ):
        with pytest.raises(UserError, match=r"templates|device|GPU|cannot write"):
            app(["eval", str(folder), "--out", out, *where, *wrong], standalone_mode=False)
    with pytest.raises(UserError, match="--pretrained"):
        app(["eval", "ViT-B-32", "--out", out, *where], standalone_mode=False)
    with pytest.raises(UserError, match="could be run"):
        app(["eval", str(folder), "--out", out, *where, "--benchmark", "winoground"], standalone_mode=False)

    store = Store.create(str(tmp_path / "store"), {})
    store.commit("s", tables("s", ["a"]), record("s"))
    matches = tmp_path / "matches.parquet"
    arguments = [
        "audit",
        "--store",
        str(tmp_path / "store"),
        *where,
        "--benchmark",
        "cola",
        "--out",
        str(matches),
    ]
    assert not app(arguments, standalone_mode=False)
    assert "cola: 0 of 8 images are in the store" in capsys.readouterr().out
    assert pq.read_table(matches).num_rows == 0


def test_captions_are_encoded_as_open_clip_encodes_them(loaded: Any) -> None:
    captions = ["", "a dog", "two zebras standing in front of a very old wooden fence, in the rain " * 3]
    features = DualEncoder(*loaded, device="cpu").text_features(captions)
    expected = loaded.model.eval().encode_text(loaded.tokenizer(captions), normalize=True)
    np.testing.assert_allclose(features, expected.detach().numpy(), atol=1e-5)
