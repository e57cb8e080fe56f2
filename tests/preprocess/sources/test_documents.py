"""JSON of four kinds, told apart by what is in it."""

import json
from pathlib import Path

import pytest

from macco.pipeline.errors import UserError
from macco.preprocess.sources import plan
from tests.support.packed import read, statuses

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
}
KARPATHY = {
    "images": [
        {
            "filepath": "val2014",
            "filename": "a.jpg",
            "split": "test",
            "sentences": [{"raw": "x"}, {"raw": "y"}],
        },
        {"filename": "b.jpg", "sentences": []},
    ],
    "dataset": "coco",
}
OBJECTS = [
    {"image": "a.jpg", "caption": "x"},
    {"image": "b.jpg", "caption": ["y", "z"]},
    {"image": "a.jpg", "caption": 3},
    {"image": None, "caption": "w"},
    {"image": {"path": "c.jpg"}},
]
LINES = "\n".join(map(json.dumps, OBJECTS))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "val2014").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg", "val2014/a.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("x.json", json.dumps(COCO), "coco"),
        ("x.json", json.dumps(COCO, indent=1), "coco"),
        ("x", json.dumps(COCO), "coco"),
        ("dataset_coco.json", json.dumps(KARPATHY), "karpathy"),
        ("x.json", json.dumps(KARPATHY, indent=1), "karpathy"),
        ("x.json", json.dumps(OBJECTS), "json"),
        ("x.json", json.dumps(OBJECTS, indent=1), "json"),
        ("x.json", LINES, "jsonl"),
        ("x.jsonl", LINES, "jsonl"),
        ("x.ndjson", json.dumps(OBJECTS[0]), "jsonl"),
        ("x.json", json.dumps(OBJECTS[0]), "jsonl"),
        ("x.txt", LINES, "jsonl"),
        ("X.JSONL", "\ufeff" + LINES, "jsonl"),
        ("x.jsonl", json.dumps(OBJECTS), "json"),
        ("x.ndjson", json.dumps(OBJECTS, indent=1), "json"),
    ],
)
def test_kinds(images: Path, name: str, text: str, format: str) -> None:
    (images / name).write_text(text)
    shards = plan([f"{images}/{name}"])
    assert {shard.format for shard in shards} == {format}
    items = [item for shard in shards for item in shard.read()]
    assert items
    assert items[0].image in (b"a.jpg", b"val2014/a.jpg")
    assert items == read(f"{images}/{name}", format=format)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize(("document", "format"), [(OBJECTS, "json"), (COCO, "coco"), (KARPATHY, "karpathy")])
def test_json_is_told_in_any_of_its_encodings(
    images: Path, encoding: str, document: object, format: str
) -> None:
    (images / "x.json").write_bytes(json.dumps(document).encode(encoding))
    assert {shard.format for shard in plan([f"{images}/x.json"])} == {format}
    assert read(f"{images}/x.json")[0].captions[0] == "x"


@pytest.mark.parametrize("text", [LINES, json.dumps(OBJECTS)])
def test_objects_are_rows(images: Path, text: str) -> None:
    (images / "x.json").write_text(text)
    items = read(f"{images}/x.json")
    assert [item.key for item in items] == ["a.jpg", "b.jpg", "row-3", "c.jpg"]
    assert items[1].captions == ("y", "z")
    assert statuses(items) == ["ok", "missing_caption", "ok", "ok", "missing_image", "missing_caption"]


def test_karpathy_keeps_the_split(images: Path) -> None:
    (images / "x.json").write_text(json.dumps(KARPATHY))
    first, second = read(f"{images}/x.json")
    assert (first.key, first.captions, first.image) == ("test/val2014/a.jpg", ("x", "y"), b"val2014/a.jpg")
    assert (second.key, second.captions[0][0], second.image) == ("b.jpg", "missing_caption", b"b.jpg")


def test_bad_lines_are_rows(images: Path) -> None:
    good = b'{"image": "%s", "text": "x"}'
    lines = [
        good % b"a.jpg",
        b'{"image": ',
        b"",
        b"[1]",
        b'{"image": "b.jpg", "text": "caf\xe9"}',
        b"[" * 99_999,
    ]
    lines += [b'{"image": "c.jpg", "text": "\\ud800"}', b'{"image": "\xff.jpg", "text": "x"}', b"null"]
    (images / "x.jsonl").write_bytes(b"\r\n".join(lines))
    items = read(f"{images}/x.jsonl")
    assert statuses(items) == ["ok", "bad_encoding", "bad_encoding", "missing_image", *["bad_row"] * 4]
    assert [item.key for item in items[4:]] == ["line-2", "line-4", "line-6", "line-9"]
    assert [item.image for item in items[:3]] == [b"a.jpg", b"b.jpg", b"c.jpg"]


def test_fields_and_key(images: Path) -> None:
    (images / "x.jsonl").write_text(
        '{"i": 7, "pic": "a.jpg", "en": "x", "de": "y"}\n{"i": 7, "pic": "a.jpg"}'
    )
    options = {"image_field": "pic", "key_field": "i", "caption_field": ["en", "de"]}
    (item,) = read(f"{images}/x.jsonl", **options)
    assert (item.key, item.captions[:2]) == ("7", ("x", "y"))
    assert len(item.captions) == 4


@pytest.mark.parametrize(
    ("text", "format", "words"),
    [
        (LINES, "coco", "cannot read"),
        (json.dumps(OBJECTS), "coco", "--format karpathy and json"),
        (json.dumps(COCO), "karpathy", "no Karpathy JSON"),
        (json.dumps(COCO), "json", "no list of objects"),
        ('[{"picture": "a.jpg", "captions": "x"}]', "auto", "no column filepath"),
        ('{"Image": "a.jpg", "captions": "x"}', "jsonl", "Is it --image-field Image?"),
        ("", "jsonl", "no column"),
    ],
)
def test_mistakes_are_one_line(images: Path, text: str, format: str, words: str) -> None:
    (images / "x.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read(f"{images}/x.json", format=format)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["coco", "karpathy", "json", "jsonl"])
def test_half_a_surrogate_pair_in_a_file_name_is_one_row_with_its_status(form: str, images: Path) -> None:
    name = "\ud800.jpg"
    documents = {
        "coco": json.dumps(COCO | {"images": [{"id": "\ud800", "file_name": name}], "annotations": []}),
        "karpathy": json.dumps({"images": [{"filename": name, "sentences": [{"raw": "x"}]}]}),
        "json": json.dumps([{"image": name, "caption": "x"}]),
        "jsonl": json.dumps({"image": name, "caption": "x"}),
    }
    (images / "x.json").write_text(documents[form])
    (shard,) = plan([str(images / "x.json")], format=form)
    found = statuses([*shard.read()])
    assert len(found) == 1
    assert "ok" not in found
