"""Exports name every image once, by the user's own name where there is one, and come in again as they were."""

import csv
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.pictures import decode
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import NEGATIVES, TABLES
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.preprocess.exchange.coco import export_coco, export_fiftyone
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.names import made_name
from macco.preprocess.exchange.records import COLUMNS
from macco.preprocess.exchange.tsv import export_tsv
from macco.preprocess.extraction.tables import Row, ShardTables
from macco.preprocess.sources import plan

CAPTION = "a dog"


def parquet(rows: list[dict[str, Any]]) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), data)
    return data.getvalue()


def jpeg(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(data, "PNG")
    return data.getvalue()


def tar(path: Path, keys: Iterable[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, key in enumerate(keys):
            for ending, data in (("png", jpeg(number)), ("txt", CAPTION.encode())):
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return str(path)


def stored(out: Path, *sources: tuple[str, dict[str, Any]]) -> Store:
    """A store of what the sources hold, without concepts: naming needs none."""
    store = Store.create(str(out), {})
    for pattern, options in sources:
        for shard in plan([pattern], **options):
            tables = ShardTables(shard.dataset, shard.name)
            for place, source in enumerate(shard.read()):
                image = decode(source.image) if source.image else None
                tables.add(source, image, [Row(0, place, CAPTION, source.status)], {})
            done = tables.finish()
            counts = {name: table.num_rows for name, table in done.items()}
            store.commit(
                shard.name,
                done,
                {"shard": shard.name, "dataset": shard.dataset, "input": shard.record()} | counts,
            )
    return store


def coco_of(store: Store, folder: Path) -> list[dict[str, Any]]:
    export_coco(store, folder / "coco.json", 0)
    images: list[dict[str, Any]] = json.loads((folder / "coco.json").read_text())["images"]
    return images


def filepaths(store: Store, folder: Path) -> list[str]:
    export_tsv(store, folder / "t.tsv", 0)
    with open(folder / "t.tsv", newline="") as stream:
        return [row["filepath"] for row in csv.DictReader(stream, delimiter="\t")]


KEYS = {
    "slashes": ["a/b", "a_b", "a%2Fb"],
    "folders": ["a", "a/a", "a.b", "a.b.c"],
    "long": ["x" * 240, "x" * 239 + "y", "é" * 110],
    "signs": ['say "x"', "q?", "s*", "back\\slash", "a b", "it's", "100%", "{x}", "c:d", "новый"],
    "dots": ["..a", "a..", "...", "-", "~"],
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_images_of_tars_have_a_name_each(kind: str, tmp_path: Path) -> None:
    keys = KEYS[kind]
    store = stored(tmp_path / "s", (tar(tmp_path / "d" / "ok.tar", keys), {"dataset": "d"}))
    (count,) = connect(store).execute("SELECT count(*) FROM samples WHERE status = 'ok'").fetchone() or (0,)
    assert count > 1
    names = [image["file_name"] for image in coco_of(store, tmp_path)]
    assert len(set(names)) == len(names) == count
    assert sorted(filepaths(store, tmp_path)) == sorted(names)
    assert export_fiftyone(store, tmp_path / "f", 0) == count
    assert sorted(os.listdir(tmp_path / "f" / "data")) == sorted(names)
    labels = json.loads((tmp_path / "f" / "labels.json").read_text())["labels"]
    assert len(labels) == count
    again = import_tsv(tmp_path / "t.tsv", str(tmp_path / "again"), str(tmp_path / "f" / "data"))
    assert again == {"ok": count}


parts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
ids = st.tuples(parts, parts, parts)


@given(ids, ids)
def test_names_differ_where_ids_do_and_any_file_system_takes_them(one: Any, other: Any) -> None:
    def name(parts: Any) -> str:
        row = dict(zip(("dataset", "shard", "key"), parts, strict=True))
        return made_name(row | {"member": None, "source": "x.tar"})

    assert (name(one) == name(other)) == (one == other)
    assert len(name(one).encode()) < 256
    assert not set(name(one)) & set('/\\:*?"<>|\0\n')


def table(folder: Path, name: str, numbers: dict[str, int]) -> tuple[str, dict[str, Any]]:
    root = folder / name
    for file, number in numbers.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(jpeg(number))
    rows = "".join(f"{file}\t{CAPTION}\n" for file in numbers)
    (folder / f"{name}.tsv").write_text("filepath\ttitle\n" + rows)
    return str(folder / f"{name}.tsv"), {"image_root": str(root)}


def test_files_keep_their_own_names_and_two_of_one_name_their_paths(tmp_path: Path) -> None:
    one = table(tmp_path, "one", {"1.png": 1, "in a/folder.png": 2})
    two = table(tmp_path, "two", {"1.png": 3, "2.png": 4})
    store = stored(tmp_path / "s", one, two, (tar(tmp_path / "tars" / "3.tar", ["k"]), {}))
    expected = {f"{tmp_path}/one/1.png", "in a/folder.png", f"{tmp_path}/two/1.png", "2.png", "tars_3_k.png"}
    assert {image["file_name"] for image in coco_of(store, tmp_path)} == expected
    assert set(filepaths(store, tmp_path)) == expected


def coco_json(path: Path, numbers: dict[Any, int]) -> tuple[str, dict[str, Any]]:
    for number in numbers.values():
        (path.parent / f"im {number}.png").write_bytes(jpeg(number))
    images = [{"id": key, "file_name": f"im {number}.png"} for key, number in numbers.items()]
    annotations = [{"id": n, "image_id": key, "caption": CAPTION} for n, key in enumerate(numbers)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return str(path), {}


def test_images_of_a_coco_json_keep_their_ids_and_names(tmp_path: Path) -> None:
    first = coco_json(tmp_path / "a.json", {139: 1, 7: 2, "x1": 3, "007": 4})
    second = coco_json(tmp_path / "b.json", {7: 5, 0: 6})
    store = stored(tmp_path / "s", first, second, (tar(tmp_path / "3.tar", ["5"]), {}))
    images = coco_of(store, tmp_path)
    assert {image["id"]: image["file_name"] for image in images if image["id"] in (139, 0)} == {
        139: "im 1.png",
        0: "im 6.png",
    }
    assert {image["file_name"] for image in images} >= {f"im {number}.png" for number in range(1, 7)}
    numbers = [image["id"] for image in images]
    assert len(set(numbers)) == len(numbers) == 7
    assert all(isinstance(number, int) for number in numbers)


def test_a_lost_image_is_left_out_and_told(tmp_path: Path) -> None:
    source = table(tmp_path, "one", {"1.png": 1, "2.png": 2})
    store = stored(tmp_path / "s", source)
    (tmp_path / "one" / "1.png").unlink()
    done = CliRunner().invoke(
        app, ["export", store.url, "--out", str(tmp_path / "f"), "--format", "fiftyone"]
    )
    assert (done.exit_code, done.stdout) == (0, f"1 rows in {tmp_path / 'f'}\n")
    assert "1 images are left out" in done.stderr
    assert "1.png" in done.stderr
    (tmp_path / "one" / "2.png").unlink()
    with pytest.raises(UserError, match="none of the 2 images"):
        export_fiftyone(store, tmp_path / "g", 0)
    assert not (tmp_path / "g").exists()


def test_negatives_are_the_stores(tmp_path: Path) -> None:
    store = stored(tmp_path / "s", (tar(tmp_path / "d" / "0.tar", ["a", "b"]), {}))
    rows = [
        {"sample_id": "d/0/a/0", "kind": kind, "caption": f"{kind}, it's"}
        for kind in ("replace_attribute", "swap_object")
    ]
    store.make(NEGATIVES)
    store.put(f"{NEGATIVES}/0.parquet", parquet(rows))
    export_tsv(store, tmp_path / "t.tsv", 0)
    with open(tmp_path / "t.tsv", newline="") as stream:
        found = [row["neg_caption"] for row in csv.DictReader(stream, delimiter="\t")]
    assert found == [str(["swap_object, it's", "replace_attribute, it's"]), "[]"]


def tsv(path: Path, *rows: tuple[Any, ...]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([[*row[:2], *map(repr, row[2:])] for row in rows])


MANY = (
    "a red dog, a red cat, a big red bus, a man in a box in a car on a road near a tree under a sky by a lake"
)
TITLES: tuple[tuple[Any, ...], ...] = (
    ("A red Dog and a dark red cat", ["dog", "cat"], [], ["red", "red", "dark"], [], ["red dog", "dark red cat"],
     [{"red dog": [[0, 0.25, 5, 5.5], [1, 1, 2, 3.1415926]], "dark red cat": []}]),
    ("a cat in a box in a car", ["cat", "box", "car"], ["in", "in"], [], ["cat in box", "box in car"], [],
     [{"box in car": [[1, 1, 2, 2]]}]),
    ("two\nlines \"quoted\"\tin a box", ["box"], ["in"], ["gone"], [], [], []),
    (MANY, ["dog", "cat", "bus", "man", "box", "car", "road", "tree", "sky", "lake"],
     ["in", "in", "on", "near", "under", "by"],
     ["red", "red", "big", "red"], ["man in box", "box in car", "car on road"], ["red dog", "red cat", "big red bus"],
     [{"red dog": [[3, 3, 9, 9]], "man in box": [[1, 2, 3, 4], [2, 2, 7, 7]]}, {"lake": [[0, 0, 20.123, 30]]}]),
)  # fmt: skip


def test_a_tsv_comes_in_again_as_it_went_out(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(jpeg(3))
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    tsv(tmp_path / "first" / "t.tsv", *((row[0], "1.png", *row[1:], [], []) for row in TITLES))
    stores = []
    for folder, after in (("first", "second"), ("second", "third")):
        (tmp_path / after).mkdir(exist_ok=True)
        out = str(tmp_path / folder / "store")
        assert import_tsv(tmp_path / folder / "t.tsv", out, str(tmp_path)) == {"ok": len(TITLES)}
        stores.append(Store.open(out))
        export_tsv(stores[-1], tmp_path / after / "t.tsv", 0.35)
    for name in TABLES:
        assert stores[0].table(name, "t-00000") == stores[1].table(name, "t-00000")
    assert stores[0].table("boxes", "t-00000").num_rows >= 7
    assert (tmp_path / "second" / "t.tsv").read_bytes() == (tmp_path / "third" / "t.tsv").read_bytes()


BAD_LISTS = {
    "no list": ("5", "object_list"),
    "a list of lists": ("[[1]]", "relation_attribute_phrase_bbox_list"),
    "three corners": ("[{'a dog': [[1, 2, 3]]}]", "relation_attribute_phrase_bbox_list"),
    "words for corners": ("[{'a dog': [['a', 2, 3, 4]]}]", "relation_attribute_phrase_bbox_list"),
}


@pytest.mark.parametrize("kind", BAD_LISTS)
def test_a_bad_list_is_a_bad_row(kind: str, tmp_path: Path) -> None:
    text, column = BAD_LISTS[kind]
    (tmp_path / "1.png").write_bytes(jpeg(3))
    row = dict.fromkeys(COLUMNS, "[]") | {"title": "a dog", "filepath": "1.png"}
    lines = ["\t".join(line[name] for name in COLUMNS) for line in (row | {column: text}, row)]
    (tmp_path / "t.tsv").write_text("\n".join(["\t".join(COLUMNS), *lines]) + "\n")
    assert import_tsv(tmp_path / "t.tsv", str(tmp_path / "s"), str(tmp_path)) == {"bad_row": 1, "ok": 1}


def test_a_byte_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(jpeg(3))
    row = b"\t".join([b"a dog \xff", b"1.png", *[b"[]"] * 8])
    (tmp_path / "t.tsv").write_bytes(
        "\t".join(COLUMNS).encode() + b"\n" + row + b"\n" + row.replace(b"\xff", b"") + b"\n"
    )
    store = str(tmp_path / "s")
    assert import_tsv(tmp_path / "t.tsv", store, str(tmp_path)) == {"bad_row": 1, "ok": 1}
    found = dicts(connect(Store.open(store)).execute("SELECT status, error FROM samples ORDER BY row"))
    assert "UTF-8" in found[0]["error"] or "utf-8" in found[0]["error"]
