"""Images of a benchmark that a store trains on are found by name and by content."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from macco.pipeline.pictures import dhash
from macco.pipeline.query import connect
from macco.pipeline.schema import SAMPLES
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.records import COLUMNS
from macco.preprocess.extraction.run import extract_shards
from macco.preprocess.extraction.shard import Job
from macco.preprocess.sources import plan
from macco.train.evaluation import registry
from macco.train.evaluation.audit import audit, stored_images
from macco.train.evaluation.item import Picture
from macco.train.evaluation.manifest import Places
from tests.pipeline.test_pictures import PICTURES, encode
from tests.support.evaluated import EXCERPTS, pictures_of
from tests.support.rows import record, tables


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


def test_a_cell_of_a_table_has_no_file_name(tmp_path: Path) -> None:
    content = tables("s", ["a", "b", "c"])
    rows = content["samples"].to_pylist()
    for number, row in enumerate(rows):
        row |= {"source": "x/train.parquet", "member": f"image/{number}", "dhash": 1 << number}
    rows[2] |= {"source": "x/2.jpg", "member": None}
    store = Store.create(str(tmp_path / "store"), {})
    store.commit("s", content | {"samples": pa.Table.from_pylist(rows, schema=SAMPLES)}, record("s"))
    cells = [Picture(str(tmp_path / "test.parquet"), f"image/{number}") for number in range(3)]
    files = [Picture(str(tmp_path / f"{number}.jpg")) for number in range(3)]
    found = audit(stored_images(store), "bivlc", [*cells, *files])
    assert [Path(row["image"]).name for row in found.matches.to_pylist()] == ["2.jpg"]


def test_files_of_a_benchmark_that_are_not_there_are_named(data: Places, tmp_path: Path) -> None:
    shutil.copytree(EXCERPTS / "sugarcrepe", tmp_path / "x")
    lost = next((tmp_path / "x").iterdir())
    lost.unlink()
    pictures, absent = registry.pictures_of("sugarcrepe", Places(tmp_path, {"sugarcrepe": tmp_path / "x"}))
    assert pictures
    (line,) = absent
    assert lost.name in line


@pytest.mark.parametrize("kind", [*PICTURES, "JPEG, turned", "large JPEG", "large PNG"])
def test_the_identical_picture_is_found_by_content(kind: str, tmp_path: Path) -> None:
    """The benchmark's file is one that a store was extracted from, or that a table was imported from."""
    noise = np.random.default_rng(3).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = Image.fromarray(noise).resize((1900, 1700), Image.Resampling.BICUBIC)
    data = {
        "JPEG, turned": lambda: encode(photo.resize((90, 70)), "JPEG", exif=turned),
        "large JPEG": lambda: encode(photo, "JPEG"),
        "large PNG": lambda: encode(photo, "PNG"),
    }.get(kind, PICTURES.get(kind))
    assert data is not None
    (tmp_path / "stored").write_bytes(data())
    (tmp_path / "asked").write_bytes(data())
    (tmp_path / "t.tsv").write_text("filepath\ttitle\nstored\ta red dog\n")
    config = ExtractConfig(device="cpu")
    extracted = Store.create(str(tmp_path / "store"), config.settings())
    extract_shards(extracted, [Job(s) for s in plan([f"{tmp_path}/t.tsv"])], config, RunConfig(workers=0))
    columns = "\t".join(COLUMNS[:7])
    (tmp_path / "macco.tsv").write_text(f"{columns}\na red dog\tstored\t[]\t[]\t[]\t[]\t[]\n")
    assert import_tsv(tmp_path / "macco.tsv", str(tmp_path / "imported"), str(tmp_path)) == {"ok": 1}
    for store in (extracted, Store.open(str(tmp_path / "imported"))):
        assert connect(store).execute("SELECT status FROM samples").fetchall() == [("ok",)]
        found = audit(stored_images(store), "b", [Picture(str(tmp_path / "asked"))], distance=0)
        assert (found.images, found.unreadable) == (1, 0)
        assert found.by_hash + found.flat == 1
        assert not found.flat or kind == "bits"
