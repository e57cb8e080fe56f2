"""Encoding, whole runs, comparison and audit, with small random models and drawn images."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.dhash import dhash
from pipeline.errors import UserError
from pipeline.schema import SAMPLES
from pipeline.store import Store
from tests.rows import record, tables
from train.evaluation.audit import audit, stored_images
from train.evaluation.benchmarks import BENCHMARKS
from train.evaluation.classification import fit, predict, run_classification, run_probe
from train.evaluation.compare import compare
from train.evaluation.encoder import DualEncoder
from train.evaluation.item import Picture
from train.evaluation.loading import activation_of, load_clip
from train.evaluation.manifest import MissingDataError, Places, load_benchmark_manifest
from train.evaluation.registry import expand, figures_of, run
from train.evaluation.report import write_report
from train.evaluation.retrieval import best_scores, recalled
from train.evaluation.run import run_benchmark
from train.export import export_open_clip

EXCERPTS = Path(__file__).parent / "data" / "benchmarks"
FULL = os.environ.get("MACCO_BENCHMARKS")  # a folder with whole annotation files: sugarcrepe/, valse/, ...


def small_clip(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1}
    text = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    return open_clip.model.CLIP(**{"embed_dim": 16, "vision_cfg": vision, "text_cfg": text} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model."""
    path = tmp_path_factory.mktemp("model") / "clip"
    export_open_clip(small_clip(), path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    return load_clip(str(folder))


@pytest.fixture
def encoder(loaded: Any) -> DualEncoder:
    return DualEncoder(*loaded, batch_size=8)


def draw(path: Path, number: int, size: tuple[int, int] = (24, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Places:
    """The excerpts, with an image drawn for every name in them."""
    for name in ("sugarcrepe", "sugarcrepe_pp", "valse", "cola", "whatsup"):
        (tmp_path / name).symlink_to(EXCERPTS / name)
    places = Places(tmp_path, {"cola_images": tmp_path / "c", "whatsup_images": tmp_path / "w"})
    pictures = {p for name in os.listdir(EXCERPTS) if name in BENCHMARKS for p in pictures_of(name, places)}
    for number, picture in enumerate(sorted(pictures, key=str)):
        draw(Path(picture.source), number)
    return places


def pictures_of(name: str, places: Places) -> list[Picture]:
    return [picture for item in BENCHMARKS[name](places).items() for picture in item.pictures]


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
        assert any("no images in" in note for note in report["notes"])


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


def test_workers_give_the_same_features(data: Places, loaded: Any) -> None:
    pictures = pictures_of("sugarcrepe", data)
    alone = DualEncoder(*loaded, batch_size=4).image_features(pictures)
    helped = DualEncoder(*loaded, batch_size=4, workers=1).image_features(pictures)
    assert np.array_equal(alone, helped)


def test_load_clip(folder: Path, tmp_path: Path) -> None:
    exported = load_clip(str(folder))
    assert activation_of(exported.model) == "gelu"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(folder)
    assert activation_of(load_clip(str(tmp_path / "run")).model) == "gelu"
    quick = load_clip(str(folder), activation="quick_gelu")
    assert activation_of(quick.model) == "quick_gelu"
    tokens = exported.tokenizer(["a red dog"])
    with torch.no_grad():
        assert not torch.allclose(
            exported.model.encode_text(tokens), quick.model.encode_text(tokens), atol=1e-6
        )

    torch.save({"state_dict": small_clip().state_dict()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="--activation"):
        load_clip(str(tmp_path / "a.pt"))
    checkpoint = load_clip(str(tmp_path / "a.pt"), activation="gelu")
    assert checkpoint.tokenizer(["a red dog"]).shape == tokens.shape
    assert checkpoint.preprocess(Image.new("RGB", (30, 20))).shape == (3, 16, 16)

    for name, message in {
        "ViT-B-33": "ViT-B-32",
        str(tmp_path): "open_clip_config.json",
        "./no/such.pt": "check the path",
    }.items():
        with pytest.raises(UserError, match=message):
            load_clip(name)
    with pytest.raises(UserError, match="gelu or quick_gelu"):
        load_clip(str(folder), activation="relu")


def test_openai_weights_are_run_with_the_activation_they_were_trained_with() -> None:
    from train.evaluation.loading import _trained_with

    assert _trained_with("ViT-B-32", "openai") == "quick_gelu"
    assert _trained_with("ViT-B-32", "laion2b_s34b_b79k") is None
    assert _trained_with("ViT-B-32", None) is None


def test_an_architecture_with_random_weights(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    path = folder.parent / "small-for-tests.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    a = load_clip("small-for-tests")
    assert a.preprocess(Image.new("RGB", (30, 20))).shape == (3, 16, 16)


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


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[[int], Path]:
    """Folders of class folders whose classes are colours."""

    def make(each: int) -> Path:
        colours = {"red_thing": (220, 20, 20), "green_thing": (20, 220, 20), "blue_thing": (20, 20, 220)}
        for split in ("train", "test"):
            for kind, colour in colours.items():
                for number in range(each):
                    path = tmp_path / "colours" / split / kind / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    noise = np.random.default_rng([number, *colour, len(split)]).normal(0, 20, (16, 16, 3))
                    Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(path)
        return tmp_path / "colours"

    return make


def test_zero_shot_and_probe(labelled: Callable[[int], Path], encoder: DualEncoder, tmp_path: Path) -> None:
    folder = labelled(8)
    outcome = run_classification(encoder, str(folder), tmp_path, "simple")
    names = ["blue thing", "green thing", "red thing"]
    templates = open_clip.SIMPLE_IMAGENET_TEMPLATES
    features = np.stack([encoder.text_features([t(n) for t in templates]).mean(0) for n in names])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    files = [
        Picture(str(p)) for n in names for p in sorted((folder / "test" / n.replace(" ", "_")).iterdir())
    ]
    right = (encoder.image_features(files) @ features.T).argmax(1) == np.repeat([0, 1, 2], 8)
    assert outcome.report["figures"][0]["percent"] == pytest.approx(100 * right.mean())
    assert run_probe(encoder, str(folder), tmp_path).report["figures"][0]["percent"] >= 90
    with pytest.raises(MissingDataError, match="download=True"):
        run_classification(encoder, "CIFAR10", tmp_path)
    with pytest.raises(MissingDataError, match="no such folder"):
        run_probe(encoder, str(tmp_path / "nothing"), tmp_path)


def test_the_probe_reaches_its_optimum() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    weights = fit(x, y, 3, 0.1).requires_grad_()
    loss = torch.nn.functional.cross_entropy(predict(weights, x), y) + 0.05 * weights[:, :-1].square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert gradient.abs().max() < 1e-3


def test_recall_counts_what_reaches_the_right_one() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.7], dtype=np.float32)
    best = best_scores(scores, np.array([True, False, False, True, False]))
    assert best.tolist() == pytest.approx([0.5, 0.9, 0.7, 0.5])
    assert [recalled(best, k) for k in (1, 3, 4)] == [False, False, True]


def test_retrieval_is_the_rank_among_all(tmp_path: Path, encoder: DualEncoder) -> None:
    captions = [[f"thing {i} seen {j} times" for j in range(6 if i else 2)] for i in range(14)]
    split = [{"image": f"val2014/{i}.png", "caption": c} for i, c in enumerate(captions)]
    for i in range(13):  # the last image is missing
        draw(tmp_path / "coco" / "val2014" / f"{i}.png", i)
    (tmp_path / "coco_retrieval").mkdir()
    (tmp_path / "coco_retrieval" / "coco_karpathy_test.json").write_text(json.dumps(split))
    places = Places(tmp_path)
    outcome = run("coco_retrieval", encoder, places)
    images = encoder.image_features([Picture(str(tmp_path / f"coco/val2014/{i}.png")) for i in range(13)])
    owners = np.array([i for i, c in enumerate(captions[:13]) for _ in c[:5]])
    scores = images @ encoder.text_features([c for cs in captions[:13] for c in cs[:5]]).T
    found = {one["figure"]: one["percent"] for one in outcome.report["figures"]}
    for k in (1, 5, 10):
        text = [i in owners[np.argsort(-row)[:k]] for i, row in enumerate(scores)]
        image = [owner in np.argsort(-column)[:k] for owner, column in zip(owners, scores.T, strict=True)]
        assert found[f"text R@{k}"] == pytest.approx(100 * np.mean(text))
        assert found[f"image R@{k}"] == pytest.approx(100 * np.mean(image))
    assert [(one["used"], one["in_files"]) for one in outcome.report["counts"]] == [(13, 14), (62, 67)]
    write_report(tmp_path / "run", {"model": "m"}, [outcome], [])
    recall = """SELECT 100 * avg((len(list_filter(scores[2:6], lambda x: x >= scores[1])) < 5)::INT)
                FROM read_parquet($1) WHERE subset = 'image' AND status = 'ok'"""
    by_sql = duckdb.execute(recall, [str(tmp_path / "run" / "items.parquet")]).fetchall()[0][0]
    assert by_sql == pytest.approx(found["image R@5"])


def test_names_of_benchmarks() -> None:
    assert expand(["cola", "classify:x", "cola"]) == ["cola", "classify:x"]
    assert set(BENCHMARKS) < set(expand(["all"]))
    with pytest.raises(UserError, match="no benchmark is called"):
        expand(["colla"])


def test_audit_finds_by_name_and_by_content(data: Places, tmp_path: Path) -> None:
    sources = sorted({picture.source for picture in pictures_of("cola", data)})
    hashes = []
    for source in sources:
        with Image.open(source) as image:
            hashes.append(dhash(image.convert("RGB")))
    Image.new("RGB", (20, 20), "white").save(sources[4])
    Path(sources[5]).unlink()
    # Stored: [0] by name in another folder and ending; [1] by hash but 3 bits; [2] 6 bits off: another image;
    # [3] by both; [4], flat, by nothing although a flat image is there; [5], unreadable, by name.
    stored = [
        (f"x/COCO_val2014_{Path(sources[0]).stem}.PNG", 1 << 40),
        ("a.jpg", hashes[1] ^ (1 << 3 | 1 << 30 | 1 << 60)),
        ("b.jpg", hashes[2] ^ sum(1 << bit for bit in (5, 15, 25, 35, 45, 55))),
        (Path(sources[3]).name, hashes[3]),
        ("c.jpg", 0),
        (Path(sources[5]).name, None),
    ]
    content = tables("s", [str(i) for i in range(len(stored))])
    rows = content["samples"].to_pylist()
    for row, (member, code) in zip(rows, stored, strict=True):
        row |= {"member": member, "dhash": code}
    store = Store.create(str(tmp_path / "store"), {})
    store.commit("s", content | {"samples": pa.Table.from_pylist(rows, schema=SAMPLES)}, record("s"))
    found = audit(stored_images(store), "cola", pictures_of("cola", data), distance=4)
    assert (found.images, found.unreadable, found.flat) == (len(sources), 1, 1)
    assert (found.by_name, found.by_hash, found.either) == (3, 2, 4)
    matched = {
        Path(r["image"]).name: (r["key"], r["by_name"], r["by_hash"]) for r in found.matches.to_pylist()
    }
    assert matched == {
        Path(sources[0]).name: ("0000", True, False),
        Path(sources[1]).name: ("0001", False, True),
        Path(sources[3]).name: ("0003", True, True),
        Path(sources[5]).name: ("0005", True, False),
    }
    for distance in range(8):  # whatever the bands, the same as comparing all pairs
        again = audit(stored_images(store), "cola", pictures_of("cola", data), distance=distance)
        assert again.by_hash == 1 + (distance >= 3) + (distance >= 6)


def test_command_line(data: Places, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from train.evaluation.cli import app

    where = ["--data", str(tmp_path), "--path", f"cola_images={tmp_path / 'c'}"]
    out = str(tmp_path / "out")
    asked = ["--benchmark", "cola", "--benchmark", "winoground", "--workers", "0", "--activation", "both"]
    assert app(["eval", str(folder), "--out", out, *where, *asked], standalone_mode=False) == 1
    printed = capsys.readouterr()
    assert printed.out.count("cola: accuracy") == 2
    assert "accept the licence" in printed.err
    both = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {row["run"] for row in both} == {"quick_gelu"}
    reports = [json.loads((tmp_path / "out" / a / "report.json").read_text()) for a in ("gelu", "quick_gelu")]
    assert [report["activation"] for report in reports] == ["gelu", "quick_gelu"]
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
