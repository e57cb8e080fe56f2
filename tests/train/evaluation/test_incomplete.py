"""What a benchmark's files lack is counted item by item; what all of it lacks is said before anything is encoded."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.train.cli import app
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Picture
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.registry import pictures_of, run
from macco.train.evaluation.report import write_report
from tests.support.evaluated import draw

GOOD, HALF = "a dog on a cat", "\ud800"


def _vg(wrong: Any, number: int) -> dict[str, Any]:
    box = {
        "bbox_x": 0,
        "bbox_y": 0,
        "bbox_w": 9,
        "bbox_h": 9,
        "relation_name": "on",
        "attributes": ["red", "blue"],
    }
    return box | {"image_path": f"{number}.jpg", "true_caption": GOOD, "false_caption": wrong}


def _valse(wrong: Any, number: int) -> dict[str, Any]:
    votes = {"mturk": {"caption": 3}, "dataset": "coco_2017"}
    return votes | {"image_file": f"{number}.jpg", "caption": GOOD, "foil": wrong}


def _mmvp(wrong: Any, number: int) -> list[dict[str, Any]]:
    statements = {2 * number + 1: GOOD, 2 * number + 2: wrong}
    return [{"Question ID": one, "Type": "Color", "Statement": text} for one, text in statements.items()]


def _winoground(wrong: Any, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "image_0": f"{number}a",
        "image_1": f"{number}b",
        "caption_0": GOOD,
        "caption_1": wrong,
    }


# Of each benchmark: a subset, and a row of its file with one caption given.
ROWS: dict[str, tuple[str, Any]] = {
    "sugarcrepe": ("swap_obj", lambda c, n: {"filename": f"{n}.jpg", "caption": GOOD, "negative_caption": c}),
    "sugarcrepe_pp": (
        "swap_object",
        lambda c, n: {"filename": f"{n}.jpg", "caption": GOOD, "caption2": c, "negative_caption": "a cat"},
    ),
    "valse": ("relations", _valse),
    "cola": ("multi", lambda c, n: [f"http://x/{n}.jpg", GOOD, f"http://x/{n}b.jpg", c]),
    "whatsup": (
        "A",
        lambda c, n: {"image_path": f"d/mug{n}_on_table.jpeg", "caption_options": [GOOD, c, "c", "d"]},
    ),
    "aro_relation": ("relation", _vg),
    "aro_attribution": ("attribution", _vg),
    "coco_order": ("coco", lambda c, n: {"image": f"{n}.jpg", "caption_options": [GOOD, c]}),
    "flickr30k_order": ("flickr30k", lambda c, n: {"image": f"{n}.jpg", "caption_options": [c, GOOD]}),
    "vlchecklist": ("rel action swig", lambda c, n: [f"{n}.jpg", {"POS": [GOOD], "NEG": [c]}]),
    "winoground": ("all", _winoground),
    "bivlc": ("all", lambda c, n: {"caption": GOOD, "negative_caption": c, "type": "swap", "subtype": "obj"}),
    "demo": (
        "relation_swap/seen",
        lambda c, n: (
            {"id": str(n), "kind": "relation_swap", "group": "seen", "image_0": f"{n}.png", "caption_0": GOOD}
            | {"image_1": f"{n}b.png", "caption_1": c}
        ),
    ),
    "colorswap": (
        "test",
        lambda c, n: (
            {"id": n, "caption_1": GOOD, "caption_2": c, "image_1": f"images/{n}a.png"}
            | {"image_2": f"images/{n}b.png", "caption_source": "human"}
        ),
    ),
    "eqben": (
        "subset",
        lambda c, n: {
            "image0": f"eqbensd/{n}a.png",
            "image1": f"eqbensd/{n}b.png",
            "caption0": GOOD,
            "caption1": c,
        },
    ),
    "crepe": (
        "atom 4",
        lambda c, n: (
            {"image_id": n, "caption": GOOD, "hard_negs": ascii(["a cat", c])}
            | {"x": 0, "y": 0, "width": 9, "height": 9}
        ),
    ),
    "mmvp_vlm": ("pairs", lambda c, n: _mmvp(c, n)),
    "svo_probes": (
        "all",
        lambda c, n: (
            {"sentence": c, "pos_image_id": 2 * n, "neg_image_id": 2 * n + 1}
            | {"subj_neg": True, "verb_neg": False, "obj_neg": False}
        ),
    ),
    "negbench": (
        "coco",
        lambda c, n: (
            {"image_path": f"/x/{n}.jpg", "correct_answer": 1, "correct_answer_template": "hybrid"}
            | {"caption_0": c, "caption_1": GOOD, "caption_2": "a cat", "caption_3": "a dog"}
        ),
    ),
    "ccneg": (
        "evaluation",
        lambda c, n: (f"/x/{n}.jpg", {"json": {"caption": GOOD}, "sop_data": {"negative-prompt": c}}),
    ),
    "half_truths": (
        "coco",
        lambda c, n: (
            {"sample_id": f"{n}_0", "image_path": f"val2014/{n}.jpg", "positive_components": ["dog", "cat"]}
            | {"negative_components": {"cat": [{"negative": c, "change_type": "object_change"}]}}
            | {"relations": []}
        ),
    ),
    "coco_retrieval": ("text", lambda c, n: {"image": f"{n}.jpg", "caption": [GOOD, c]}),
}
TEXT_OR_NULL = ("bivlc", "mmvp_vlm", "svo_probes", "negbench")  # columns of Parquet, cells of CSV
BAD = {"null": None, "a number": 5, "half a surrogate pair": HALF}


def written(root: Path, name: str, captions: list[Any]) -> Places:
    """A file with one caption of each row given, and its images."""
    subset, row = ROWS[name]
    manifest = load_benchmark_manifest(name)
    subset = subset if subset in manifest.files else next(iter(manifest.files))
    rows = [row(caption, number) for number, caption in enumerate(captions)]
    path = root / (manifest.folder or name) / manifest.files[subset].path
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        image = {"bytes": draw(root / "x.png", 1).read_bytes()}
        pq.write_table(
            pa.Table.from_pylist([one | {"image": image, "negative_image": image} for one in rows]), path
        )
    elif path.suffix == ".pt":
        torch.save({"image_paths": [one[0] for one in rows], "annotations": [one[1] for one in rows]}, path)
    elif path.suffix == ".csv":
        lines = [line for one in rows for line in (one if isinstance(one, list) else [one])]
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, lines[0])
            writer.writeheader()
            writer.writerows(lines)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(rows))
    return Places(root)


def drawn(name: str, places: Places) -> None:
    found: list[Picture] = pictures_of(name, places)[0]
    for number, picture in enumerate(sorted({p.source for p in found if p.member is None})):
        draw(Path(picture), number)


def test_every_benchmark_has_a_row_here() -> None:
    assert BENCHMARKS.keys() <= ROWS.keys()


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ROWS)
def test_a_caption_that_is_none_is_an_item_with_a_status(
    name: str, kind: str, encoder: DualEncoder, tmp_path: Path
) -> None:
    if name in TEXT_OR_NULL and kind != "null":
        pytest.skip("a cell of such a file holds text or nothing")
    places = written(tmp_path, name, ["a cat on a dog", BAD[kind], "a cat on a red dog"])
    drawn(name, places)
    outcome = run(name, encoder, places)
    good = {"coco_retrieval": 3 + 5}.get(name, 2)  # a retrieval's image is a query of its own
    assert outcome.report["statuses"] == {"ok": good, "missing_caption": 1}
    rows = outcome.items.to_pylist()
    (bad,) = (row for row in rows if row["status"] != "ok")
    assert bad["scores"] is bad["answers"] is None
    assert all(row["answers"] for row in rows if row["status"] == "ok")
    write_report(tmp_path / "out", {"model": "m"}, [outcome], [])
    assert "1 items: missing_caption" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("name", ROWS)
def test_nothing_but_missing_captions_is_a_report_too(
    name: str, encoder: DualEncoder, tmp_path: Path
) -> None:
    places = written(tmp_path, name, [None, None])
    drawn(name, places)
    statuses = run(name, encoder, places).report["statuses"]
    assert statuses["missing_caption"] == 2


EMPTY = [
    name for name in ROWS if name not in TEXT_OR_NULL and name != "crepe"
]  # the others' files have columns


@pytest.mark.parametrize("name", EMPTY)  # which an empty list is a file of
def test_a_file_without_any_item_is_one_line(name: str, encoder: DualEncoder, tmp_path: Path) -> None:
    places = written(tmp_path, name, [])
    with pytest.raises(UserError, match=f"{name}: its files hold no items: "):
        run(name, encoder, places)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "bivlc"])  # whose images lie in its file
def test_a_benchmark_without_any_image_ends_at_once_with_1(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoded(*arguments: Any) -> None:
        raise AssertionError("something was encoded")

    monkeypatch.setattr(DualEncoder, "encode_captions", encoded)
    monkeypatch.setattr(DualEncoder, "encode_pictures", encoded)
    places = written(tmp_path / "data", name, ["a cat on a dog"] * 2)
    command = [
        "eval",
        str(folder),
        "--benchmark",
        name,
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("not run"))
    manifest = load_benchmark_manifest(name)
    gets = [manifest.get, *(places.collections[images].get for images in manifest.images)]
    assert f"not run: {name}: no image is there: " in line
    assert any(get in line for get in gets if get)


def test_some_images_are_enough(folder: Path, tmp_path: Path) -> None:
    places = written(tmp_path, "sugarcrepe", ["a cat on a dog"] * 2)
    draw(Path(pictures_of("sugarcrepe", places)[0][0].source), 0)
    command = [
        "eval",
        str(folder),
        "--benchmark",
        "sugarcrepe",
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    Path(pictures_of("sugarcrepe", places)[0][0].source).write_bytes(b"no image")
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 1
