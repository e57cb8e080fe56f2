"""Formats of other programs, and the page to look at."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.exchange.coco import export_coco, export_fiftyone
from macco.preprocess.exchange.concepts import concepts_of
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.records import COLUMNS
from macco.preprocess.exchange.tsv import export_tsv
from macco.preprocess.look.view import write_page
from tests.support.pages import held

THRESHOLD = 0.35


def test_coco_boxes_are_the_stores(store: Store, tmp_path: Path) -> None:
    images = export_coco(store, tmp_path / "coco.json", THRESHOLD)
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert images == len(coco["images"]) == 24
    distinct = (
        "SELECT count(*) FROM (SELECT DISTINCT b.key, phrase, x0, y0, x1, y1 "
        "FROM boxes b JOIN concepts USING (concept_id) WHERE score >= ?)"
    )
    assert len(coco["annotations"]) == connect(store).execute(distinct, [THRESHOLD]).fetchall()[0][0] > 24
    size = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    names = {category["id"] for category in coco["categories"]}
    for box in coco["annotations"]:
        x, y, w, h = box["bbox"]
        width, height = size[box["image_id"]]
        assert 0 <= x < x + w <= width + 0.01
        assert 0 <= y < y + h <= height + 0.01
        assert box["category_id"] in names


def test_fiftyone_folder_has_the_images(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "fiftyone"
    assert export_fiftyone(store, out, THRESHOLD) == 24
    labels = json.loads((out / "labels.json").read_text())
    files = sorted((out / "data").iterdir())
    assert {file.stem for file in files} == set(labels["labels"])
    assert Image.open(files[0]).size == (128, 128)
    assert all(
        0 <= box["label"] < len(labels["classes"]) for boxes in labels["labels"].values() for box in boxes
    )
    with pytest.raises(UserError, match="not empty"):
        export_fiftyone(store, out, THRESHOLD)


def test_tsv_out_and_in_again(store: Store, tmp_path: Path) -> None:
    assert export_tsv(store, tmp_path / "train.tsv", THRESHOLD) == 24 * 5
    with open(tmp_path / "train.tsv", newline="") as stream:
        lines = list(csv.reader(stream, delimiter="\t"))
    assert tuple(lines[0]) == COLUMNS
    export_fiftyone(store, tmp_path / "images", THRESHOLD)
    out = str(tmp_path / "imported")
    assert import_tsv(tmp_path / "train.tsv", out, str(tmp_path / "images" / "data")) == {"ok": 120}
    imported = connect(Store.open(out))
    original = connect(store)
    # The words that are masked are the same, at the same places.
    words = (
        'SELECT caption, kind, start, "end" FROM concepts JOIN samples USING (sample_id) '
        "WHERE kind = 'attribute' ORDER BY ALL"
    )
    assert imported.execute(words).fetchall() == original.execute(words).fetchall()
    text = (
        "SELECT count(*) FROM concepts c JOIN samples s USING (sample_id) "
        'WHERE substr(caption, start + 1, "end" - start) <> text'
    )
    assert imported.execute(text).fetchall() == [(0,)]
    grounded = "SELECT count(DISTINCT concept_id) FROM concept_boxes WHERE kind = 'relation'"
    assert imported.execute(grounded).fetchall()[0][0] > 0
    assert import_tsv(tmp_path / "train.tsv", out, str(tmp_path / "images" / "data")) == {}  # all was there


def test_equal_words_of_a_tsv_row_get_places_of_their_own() -> None:
    row = {
        "title": "a red dog and a red cat in a box in a car",
        "object_list": ["dog", "cat", "box", "car"],
        "relation_list": ["in", "in"],
        "attribute_list": ["red", "red", "purple"],
        "relation_phrase_list": ["cat in box", "box in car"],
        "attribute_phrase_list": ["red dog", "red cat"],
        "relation_attribute_phrase_bbox_list": [{"red dog": [[0, 0, 5, 5]], "cat in box": [[1, 1, 2, 2]]}],
    }
    concepts = concepts_of(row)
    places = [(c.kind, row["title"][c.spans[0].start : c.spans[0].end], c.spans[0].start) for c in concepts]
    assert [place[2] for place in places if place[:2] == ("relation", "in")] == [24, 33]
    assert [place[2] for place in places if place[:2] == ("attribute", "red")] == [2, 16]
    first_red = next(c for c in concepts if c.kind == "attribute")
    assert first_red.owner is not None
    assert concepts[first_red.owner].phrase == "red dog"


def test_a_tsv_with_bad_lines_and_missing_images(tmp_path: Path) -> None:
    header = "\t".join(COLUMNS)
    lists = "\t".join(["[]"] * 8)
    evil = "\t".join(["__import__('os').system('touch " + str(tmp_path / "owned") + "')", *["[]"] * 7])
    (tmp_path / "x.tsv").write_text(f"{header}\na dog\tno.jpg\t{lists}\na cat\tno.jpg\t{evil}\na cow\n")
    statuses = import_tsv(tmp_path / "x.tsv", str(tmp_path / "store"), str(tmp_path))
    assert statuses == {"missing_image": 2, "bad_row": 1}
    assert not (tmp_path / "owned").exists()
    (tmp_path / "y.tsv").write_text("title\tfilepath\n")
    with pytest.raises(UserError, match="no column"):
        import_tsv(tmp_path / "y.tsv", str(tmp_path / "other"), ".")


def test_the_page_shows_captions_as_text_and_images(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "view.html"
    assert write_page(store, page, where="caption_id < 2", limit=3, threshold=THRESHOLD) == 3
    figures = held(page)
    assert len(figures) == page.read_text().count("data:image/jpeg") == 3
    assert all(
        concept["spans"] for one in figures for caption in one["captions"] for concept in caption["concepts"]
    )
    assert any(one["boxes"] for one in figures)
    with pytest.raises(UserError, match="DuckDB"):
        write_page(store, page, where="nonsense >", limit=3, threshold=THRESHOLD)
