"""The authors' collection is read as it lies there, beside each benchmark's own layout."""

import json
from pathlib import Path

import pytest

from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.bundle import bundle, packed
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.manifest import MissingDataError, Places, collections, load_benchmark_manifest
from macco.train.evaluation.registry import pictures_of, run
from tests.support.bundled import write_bundle
from tests.support.evaluated import draw

COUNTS = {
    "aro_relation": 8,
    "aro_attribution": 25,
    "sugarcrepe": 21,
    "valse": 33,
    "vlchecklist": 42,
    "whatsup": 20,
}


@pytest.fixture
def there(tmp_path: Path) -> Path:
    write_bundle(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COUNTS)
def test_every_item_and_picture_of_the_collection_is_found(there: Path, name: str) -> None:
    benchmark = BENCHMARKS[name](Places(there))
    items = benchmark.items()
    assert len(items) == COUNTS[name]
    assert not benchmark.absent
    assert all(Path(picture.source).is_file() for item in items for picture in item.pictures)


def test_retrieval_is_found_too(there: Path) -> None:
    for name in ("coco_retrieval", "flickr30k_retrieval"):
        pictures, absent = pictures_of(name, Places(there))
        assert len(pictures) == 3
        assert not absent
        assert all(Path(picture.source).is_file() for picture in pictures)


def test_aro_under_its_other_name(there: Path) -> None:
    (there / "ARO").rename(there / "ARO_Relation_dataset")
    pictures, _ = pictures_of("aro_attribution", Places(there))
    assert len(pictures) == 25
    assert all(Path(picture.source).is_file() for picture in pictures)


def test_a_benchmarks_own_layout_is_looked_for_first(there: Path) -> None:
    (there / "sugarcrepe").mkdir()
    rows = {"0": {"filename": "own.jpg", "caption": "a", "negative_caption": "b"}}
    (there / "sugarcrepe" / "add_obj.json").write_text(json.dumps(rows))
    places = Places(there)
    manifest = load_benchmark_manifest("sugarcrepe")
    assert places.file(manifest, "add_obj") == there / "sugarcrepe" / "add_obj.json"
    assert places.file(manifest, "add_att") == there / "sugar-crepe" / "add_att.json"
    draw(there / "coco/val2017/own.jpg", 0)
    pictures, _ = pictures_of("sugarcrepe", places)
    assert all(Path(picture.source).is_file() for picture in pictures)  # own.jpg here, the others there


def test_a_place_that_was_named_is_the_only_one(there: Path) -> None:
    places = Places(there, {"vlchecklist": there / "VL_checklist/VL_checklist_json_data"})
    assert len(BENCHMARKS["vlchecklist"](places).items()) == COUNTS["vlchecklist"]
    with pytest.raises(MissingDataError):
        BENCHMARKS["sugarcrepe"](Places(there, {"sugarcrepe": there / "none"})).items()


def test_what_is_packed_is_named_with_how_to_unpack_it(there: Path, encoder: DualEncoder) -> None:
    folder = there / "VL_checklist/VL_checklist_datasets"
    (folder / "hake").rename(there / "away")
    for number in range(3):
        (folder / f"hake.tar.gz.part-{number:03}").write_bytes(b"x")
    notes = run("vlchecklist", encoder, Places(there)).report["notes"]
    assert any(
        "3 of 3 image files" in note and f"cat {folder / 'hake.tar.gz'}.part-* | tar xzf -" in note
        for note in notes
    )
    (folder / "hake.tar.gz.part-001").unlink()
    assert packed(folder / "hake") == f"{folder / 'hake.tar.gz'}.part-001 is missing: download it"
    (folder / "hake.tar.gz").write_bytes(b"x")
    assert "tar xf" in (packed(folder / "hake") or "")
    assert packed(folder / "swig") is None


def test_missing_pictures_outside_every_collection_are_counted(there: Path, encoder: DualEncoder) -> None:
    (there / "VALSE/visdial/000000000001.jpg").unlink()
    report = run("valse", encoder, Places(there)).report
    assert report["statuses"] == {"ok": 32, "missing_image": 1}
    assert any(
        "other image files are not there" in note and "000000000001" in note for note in report["notes"]
    )


def test_the_collections_manifest_speaks_of_what_there_is() -> None:
    found = bundle()
    assert "hf download" in found.get
    assert found.licence
    assert set(found.images) <= set(collections())
    for name, place in found.benchmarks.items():
        assert {*place.files, *place.roots} <= set(load_benchmark_manifest(name).files)
