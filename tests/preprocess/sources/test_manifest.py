import json
from pathlib import Path

import pytest
import yaml

from macco.pipeline.errors import UserError
from macco.preprocess.sources import plan_manifest
from macco.preprocess.sources.manifest import FOLDER, load_manifest

NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def change(tmp_path: Path, **changes: object) -> str:
    document = {**yaml.safe_load((FOLDER / "coco2017.yaml").read_text()), **changes}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in document.items() if value is not None}))
    return str(path)


def test_the_corpora_are_there() -> None:
    assert {"coco2014", "coco2017", "cc3m", "cc12m", "laion", "flickr30k", "demo"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_loads(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest == load_manifest(str(FOLDER / f"{name}.yaml"))
    assert manifest.name == name
    for one in manifest.located("/data/"):
        assert one.pattern.startswith("/data/")
        assert "{root}" not in f"{one.pattern}{one.image_root}"


def test_both_coco_splits_have_the_same_captions() -> None:
    sums = [
        (sum(one.counts.images or 0 for one in shards), sum(one.counts.captions or 0 for one in shards))
        for shards in (load_manifest("coco2014").shards, load_manifest("coco2017").shards)
    ]
    assert sums == [(123_287, 616_767)] * 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"licence": None}, "licence"),
        ({"licence": ""}, "licence"),
        ({"license": "MIT"}, "license"),
        ({"format": "zip"}, "format"),
        ({"name": "Bad Name"}, "name"),
        ({"root_variable": "a-b"}, "root_variable"),
        ({"shards": []}, "shards"),
        ({"shards": [{"split": "train"}]}, "shards.0.pattern"),
        ({"shards": [{"split": "train", "pattern": "x", "sise": 3}]}, "shards.0.sise"),
        (
            {"shards": [{"split": "train", "pattern": "x", "counts": {"images": "many"}}]},
            "shards.0.counts.images",
        ),
        ({"fields": {"caption": "title"}}, "fields.caption"),
    ],
)
def test_mistakes_name_the_file_and_the_field(tmp_path: Path, changes: dict[str, object], field: str) -> None:
    with pytest.raises(UserError) as caught:
        load_manifest(change(tmp_path, **changes))
    assert str(caught.value).startswith(f"mine.yaml: field {field!r}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\tx: 1"])
def test_unreadable_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^mine\.yaml: [^\n]+$"):
        load_manifest(f"{tmp_path}/mine.yaml")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    for name in ("coco2018", f"{tmp_path}/none.yaml"):
        with pytest.raises(UserError, match="coco2017"):
            load_manifest(name)


def test_manifests_of_the_working_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data_manifests").mkdir()
    change(tmp_path / "data_manifests", name="mine")
    monkeypatch.chdir(tmp_path)
    assert load_manifest("mine").name == "mine"


def test_placeholders(tmp_path: Path) -> None:
    shards = [{"split": "a", "pattern": "${BUCKET}/{root}/{00..01}.tar", "image_root": "{root}/i"}]
    manifest = load_manifest(change(tmp_path, shards=shards))
    (one,) = manifest.located("x", {"BUCKET": "s3://b"})
    assert (one.pattern, one.image_root) == ("s3://b/x/{00..01}.tar", "x/i")
    (one,) = manifest.located(None, {"BUCKET": "s3://b", "COCO_ROOT": "y/"})
    assert one.pattern == "s3://b/y/{00..01}.tar"
    with pytest.raises(UserError, match="BUCKET"):
        manifest.located("x", {})
    with pytest.raises(UserError, match="--root DIR or set COCO_ROOT"):
        manifest.located(None, {"BUCKET": "s3://b"})


def test_a_manifest_becomes_shards(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for number, split in enumerate(("train", "val"), 1):
        (tmp_path / f"{split}2017").mkdir()
        (tmp_path / f"{split}2017" / "a.jpg").write_bytes(split.encode())
        images = [{"id": number, "file_name": "a.jpg"}]
        annotations = [{"id": number, "image_id": number, "caption": f"of {split}"}]
        text = json.dumps({"images": images, "annotations": annotations})
        (tmp_path / "annotations" / f"captions_{split}2017.json").write_text(text)
    shards = plan_manifest("coco2017", str(tmp_path))
    assert {shard.dataset for shard in shards} == {"coco2017"}
    assert [shard.name for shard in shards] == ["captions_train2017-00000", "captions_val2017-00000"]
    items = [item for shard in shards for item in shard.read()]
    assert [(item.image, item.captions) for item in items] == [
        (b"train", ("of train",)),
        (b"val", ("of val",)),
    ]
    assert plan_manifest("coco2017", str(tmp_path), dataset="mine")[0].dataset == "mine"
