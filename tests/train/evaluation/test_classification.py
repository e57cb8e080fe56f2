"""Zero-shot classification, linear probe and retrieval of any folder of images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from macco.pipeline.errors import UserError
from macco.train.evaluation.classification import (
    class_names,
    fit,
    open_labelled,
    predict,
    run_classification,
    run_probe,
)
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Picture
from macco.train.evaluation.manifest import MissingDataError, Places
from macco.train.evaluation.registry import run
from macco.train.evaluation.report import write_report
from macco.train.evaluation.retrieval import best_scores, recalled
from tests.support.evaluated import draw


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
    outcome = run_classification(encoder, str(folder), Places(tmp_path), "simple")
    names = ["blue thing", "green thing", "red thing"]
    templates = open_clip.SIMPLE_IMAGENET_TEMPLATES
    features = np.stack([encoder.text_features([t(n) for t in templates]).mean(0) for n in names])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    files = [
        Picture(str(p)) for n in names for p in sorted((folder / "test" / n.replace(" ", "_")).iterdir())
    ]
    right = (encoder.image_features(files) @ features.T).argmax(1) == np.repeat([0, 1, 2], 8)
    assert outcome.report["figures"][0]["percent"] == pytest.approx(100 * right.mean())
    assert run_probe(encoder, str(folder), Places(tmp_path)).report["figures"][0]["percent"] >= 90
    with pytest.raises(MissingDataError, match="download=True"):
        run_classification(encoder, "CIFAR10", Places(tmp_path))
    with pytest.raises(UserError, match="has no test split"):  # one that asks for more than a folder
        run_classification(encoder, "HMDB51", Places(tmp_path))
    with pytest.raises(MissingDataError, match="no such folder"):
        run_probe(encoder, str(tmp_path / "nothing"), Places(tmp_path))


def test_an_unreadable_image_is_a_counted_item(
    labelled: Callable[[int], Path], encoder: DualEncoder, tmp_path: Path
) -> None:
    folder = labelled(3)
    (folder / "test" / "red_thing" / "0.png").write_bytes(b"xx")
    (folder / "train" / "red_thing" / "0.png").write_bytes(b"xx")
    for task in (run_classification, run_probe):
        report = task(encoder, str(folder), Places(tmp_path)).report
        assert report["counts"][0] | {"ties": 0} == {
            "subset": "test",
            "used": 8,
            "in_files": 9,
            "expected": 9,
            "ties": 0,
        }
        assert report["statuses"] == {"ok": 8, "image_corrupt": 1}


def test_splits_and_classes_are_what_they_are_called(
    labelled: Callable[[int], Path], encoder: DualEncoder, tmp_path: Path
) -> None:
    folder, places = labelled(2), Places(tmp_path)
    flat = folder / "test"
    assert run_classification(encoder, str(flat), places).report["counts"][0]["used"] == 6
    with pytest.raises(UserError, match="no folder train"):  # not trained on what it is tested on
        run_probe(encoder, str(flat), places)
    assert Places(tmp_path, {"demo": tmp_path / "x"}).folder("demo") == tmp_path / "x"
    (tmp_path / "x").mkdir()
    shutil.copytree(folder, tmp_path / "x" / "classify")
    assert (
        run_probe(encoder, "demo", Places(tmp_path, {"demo": tmp_path / "x"})).report["counts"][0]["used"]
        == 6
    )
    with pytest.raises(MissingDataError, match="macco-prep demo"):
        run_probe(encoder, "demo", Places(tmp_path))
    flat.rename(folder / "val")  # as ImageNet calls it
    assert run_probe(encoder, str(folder), places).report["counts"][0]["used"] == 6
    (folder / "val" / "red_thing").rename(folder / "val" / "pink_thing")
    with pytest.raises(UserError, match="different classes"):
        run_probe(encoder, str(folder), places)
    (folder / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no folder test or val"):  # never the splits as classes
        run_classification(encoder, str(folder), places)
    shutil.rmtree(folder / "train" / "red_thing")
    shutil.rmtree(folder / "train" / "blue_thing")
    with pytest.raises(UserError, match="one class alone"):
        run_classification(encoder, str(folder / "train"), places)


def test_a_data_set_of_torchvision_that_has_val_and_several_names_per_class(
    encoder: DualEncoder, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        for number, wnid in enumerate(("n01440764", "n02102040")):
            path = draw(tmp_path / "torchvision" / "imagenette2" / split / wnid / "a.png", number)
            path.rename(path.with_suffix(".JPEG"))
    dataset = open_labelled("imagenette", Places(tmp_path))
    assert class_names(dataset) == ["tench", "English springer"]
    assert run_classification(encoder, "imagenette", Places(tmp_path)).report["counts"][0]["used"] == 2


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
