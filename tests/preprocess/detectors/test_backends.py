"""What a spec names besides networks: nothing, a file of boxes, another package's detector."""

import io
import json
import tarfile
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.query import query
from macco.pipeline.store import Store
from macco.preprocess import plugins
from macco.preprocess.cli import app
from macco.preprocess.detectors import (
    Detections,
    check_detector,
    detector_fingerprint,
    load_detector,
)
from macco.preprocess.detectors.catalogue import list_models


def extract(corpus: Path, out: Path, *more: object) -> Store:
    given = ["extract", "--shards", f"{corpus}/*.tar", "--out", out, "--workers", 0, "--device", "cpu", *more]
    done = CliRunner().invoke(app, [str(each) for each in given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return Store.open(str(out))


def rows(store: Store, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in query(store, sql).to_pylist()]


def test_none_gives_the_concepts_and_no_boxes(corpus: Path, store: Store, tmp_path: Path) -> None:
    bare = extract(corpus, tmp_path / "store", "--detector", "none")
    concepts = "SELECT * EXCLUDE (sample_id) FROM concepts ORDER BY concept_id, part"
    assert rows(bare, concepts) == rows(store, concepts)
    assert rows(bare, "SELECT count(*) FROM boxes") == [(0,)]
    samples = "SELECT * EXCLUDE (dhash) FROM samples ORDER BY sample_id"  # hashes are made when an audit asks for them
    assert rows(bare, samples) == rows(store, samples)
    assert bare.description()["settings"]["detector"] == "none"
    with pytest.raises(UserError, match="stands alone"):
        check_detector("none:x")


def test_none_tells_damaged_images_by_their_ends(tmp_path: Path) -> None:
    """Headers and last bytes are read, not pixels; `max_pixels` holds as it does for those that are decoded."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(stream, "JPEG")
    whole = stream.getvalue()
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48), "red").save(turned, "JPEG", exif=exif)
    wide = io.BytesIO()
    Image.new("RGB", (400, 300)).save(wide, "PNG")
    images = {"a": whole, "b": turned.getvalue(), "c": whole[:-40], "d": b"no image", "e": wide.getvalue()}
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in images.items():
            for ending, content in (("jpg", data), ("txt", b"A red dog")):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    made = extract(tmp_path, tmp_path / "store", "--detector", "none", "--max-pixels", 100_000)
    assert rows(made, "SELECT key, status, width, height FROM samples ORDER BY key") == [
        ("a", "ok", 64, 48),
        ("b", "ok", 48, 64),
        ("c", "image_truncated", None, None),
        ("d", "image_unsupported", None, None),
        ("e", "image_too_large", None, None),
    ]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_boxes_of_a_store_come_back_from_a_file(corpus: Path, store: Store, tmp_path: Path) -> None:
    made = query(
        store,
        "SELECT DISTINCT c.key AS image, c.shard, phrase, x0, y0, x1, y1, score "
        "FROM boxes b JOIN concepts c USING (concept_id) WHERE part = 0",
    )
    pq.write_table(made, tmp_path / "boxes.parquet")
    again = extract(corpus, tmp_path / "store", "--detector", f"boxes:{tmp_path}/boxes.parquet")
    boxes = "SELECT concept_id, x0, y0, x1, y1, score FROM boxes ORDER BY ALL"
    assert rows(again, boxes) == rows(store, boxes) != []
    counts = sum((Counter(record["counts"]) for record in again.records().values()), Counter())
    assert counts["images in the file"] + counts["images that are not in the file"] == 24
    assert counts["phrases of the file that no caption has"] == 0
    fingerprint = again.description()["settings"]["detector_fingerprint"]
    assert fingerprint == detector_fingerprint(f"boxes:{tmp_path}/boxes.parquet")


def test_boxes_of_coco_are_joined_by_image_and_phrase(tmp_path: Path) -> None:
    coco = {
        "images": [
            {"id": 3, "file_name": "a/1.jpg", "width": 200, "height": 100},
            {"id": 4, "file_name": "2.jpg", "width": 10, "height": 10},
        ],
        "categories": [{"id": 1, "name": "Dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 1, "bbox": [20, 10, 100, 50], "score": 0.4},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 20, 10], "score": 0.9},
            {"id": 3, "image_id": 3, "category_id": 2, "bbox": [0, 0, 0, 10]},
            {"id": 4, "image_id": 3, "category_id": 1, "bbox": [0, 0, 20, 10], "score": 0.01},
        ],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(coco))
    boxes = load_detector(f"boxes:{file}")
    named = [["1", "a/1.jpg", "1.jpg"], ["2", "2.jpg"], ["5"]]
    one, two, none = boxes.look_up("0", named, [["red dog", "dog", "cat"], ["dog"], ["dog"]])
    assert one.phrase.tolist() == [1, 1]
    np.testing.assert_allclose(one.boxes, [[0, 0, 0.1, 0.1], [0.1, 0.1, 0.6, 0.6]], atol=1e-6)
    np.testing.assert_allclose(one.scores, [0.9, 0.4])
    assert len(two.phrase) == len(none.phrase) == 0
    assert dict(boxes.counts) == {
        "images in the file": 2,
        "images that are not in the file": 1,
        "boxes of the file that are none": 1,
        "phrases asked": 5,
        "phrases without a word": 0,
        "phrases that their image has no row of in the file": 3,
        "phrases of the file that no caption has": 0,
    }


def test_an_image_of_a_named_shard_is_that_one(tmp_path: Path) -> None:
    box = {"image": "1", "phrase": "dog", "x0": 0.0, "y0": 0.0, "y1": 1.0}
    file = write(tmp_path / "b.parquet", [box | {"shard": s, "x1": w} for s, w in (("a", 0.5), ("b", 0.25))])
    boxes = load_detector(f"boxes:{file}")
    found = [boxes.look_up(shard, [["1"]], [["dog"]])[0] for shard in ("a", "b", "c")]
    assert [one.boxes[:, 2].tolist() for one in found] == [[0.5], [0.25], []]


def test_files_that_hold_no_boxes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.json").write_text('{"images": []}')
    write(tmp_path / "y.parquet", [{"image": "1", "x0": 0.0}])
    corners = {"x0": 10.0, "y0": 10.0, "x1": 30.0, "y1": 30.0}
    write(tmp_path / "z.parquet", [{"image": "1", "phrase": "dog"} | corners])
    for name, told in {
        "no.parquet": "no such file",
        "x.parquet": "no Parquet",
        "x.json": "no COCO detection JSON",
        "y.parquet": "lacks the columns phrase, y0",
        "z.parquet": "width and height",
    }.items():
        with pytest.raises(UserError, match=told):
            load_detector(f"boxes:{tmp_path}/{name}")


class Whole:
    """Another package's detector: the whole image is whatever is asked for."""

    max_side = 64

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.fingerprint = "whole"

    def detect(self, images: list[object], phrases: list[list[str]]) -> list[Detections]:
        return [
            Detections(
                np.arange(len(own), dtype=np.int32),
                np.tile(np.array([[0, 0, 1, 1]], np.float32), (len(own), 1)),
                np.full(len(own), 0.5, np.float32),
            )
            for own in phrases
        ]


class WholeBackend:
    def check(self, name: str) -> None:
        if name:
            raise UserError(f"whole:{name} is not here")

    def fingerprint(self, name: str) -> str:
        return "whole"

    def load(self, name: str, device: str, settings: object) -> Whole:
        return Whole()


def test_another_package_adds_a_detector(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        if group != "macco.detectors":
            return []
        places = {"whole": f"{__name__}:WholeBackend", "broken": "no_such_module:Backend"}
        return [EntryPoint(name, value, group) for name, value in places.items()]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    made = extract(corpus, tmp_path / "store", "--detector", "whole")
    assert made.description()["settings"]["detector_fingerprint"] == "whole"
    assert rows(made, "SELECT DISTINCT x0, y0, x1, y1, score FROM boxes") == [(0, 0, 1, 1, 0.5)]
    for spec, told in {"whole:x": "not here", "broken": "does not load", "yolo": "whole"}.items():
        with pytest.raises(UserError, match=told):
            check_detector(spec)


def test_models_are_listed_with_the_line_that_gets_them() -> None:
    rows = {row["name"]: row for row in list_models()}
    assert rows["tiny"]["here"]
    assert rows["none"]["here"]
    for size, ap in (("base", "48.3"), ("large", "51.1")):
        row = rows[f"transformers:iSEE-Laboratory/llmdet_{size}"]
        assert row["licence"] == "Apache-2.0"
        assert row["lvis"].startswith(ap)
        assert "LLMDet" in row["source"]
        assert row["here"] or f"hf download iSEE-Laboratory/llmdet_{size}" in row["get"]
    for name, row in rows.items():
        assert row["kind"] in ("parser", "detector")
        figure = row.get("lvis", row.get("figure", ""))
        assert ("source" in row) == (figure[:1].isdigit() or figure.startswith(("LAS", "SPICE"))), name
        if name not in ("tiny", "none", "boxes:FILE"):
            assert {"licence", "size", "figure" if row["kind"] == "parser" else "lvis"} <= row.keys(), name
        assert row.get("here", True) or row["get"]
