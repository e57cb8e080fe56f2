"""Folders as a source: images with texts beside them, Hugging Face's, img2dataset's, and what else people name."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.pipeline.errors import UserError
from macco.preprocess.sources import plan
from tests.support.packed import Files, pack, read, sample, statuses


def fill(folder: Path, files: Files) -> str:
    for name, data in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


BESIDE: Files = [
    ("a.jpg", b"a"),
    ("a.txt", b"a dog\n"),
    ("sub/b.PNG", b"b"),
    ("sub/b.caption", b"a cat"),
    ("c.v2.webp", b"c"),
    ("c.v2.json", b'{"caption": "a cow"}'),
    ("d.jpg", b"d"),
    ("e.txt", b"no picture"),
    ("f.jpg", b"f"),
    ("f.txt", b"caf\xe9"),
    ("stats.json", b"{}"),
    (".hidden/g.jpg", b"g"),
    ("._a.jpg", b"mac"),
]
ROWS = [
    ("a.jpg", "ok"),
    ("c.v2.webp", "ok"),
    ("d.jpg", "missing_caption"),
    ("e.txt", "missing_image"),
    ("f.jpg", "bad_encoding"),
    ("sub/b.PNG", "ok"),
]


def test_images_with_texts_beside_them(tmp_path: Path) -> None:
    url = fill(tmp_path / "my.pictures", BESIDE)
    shards = plan([url], rows_per_shard=2)
    assert [(shard.name, shard.dataset) for shard in shards] == [
        (f"my.pictures-{number:05}", "my.pictures") for number in range(3)
    ]
    items = [item for shard in shards for item in shard.read()]
    assert list(zip([item.key for item in items], statuses(items), strict=True)) == ROWS
    assert [item.captions[0] for item in items if item.status == "ok"][:2] == ["a dog", "a cow"]
    assert (items[-1].image, items[-1].source) == (b"b", f"{url}/sub/b.PNG")


def test_at_any_url() -> None:
    filesystem = fsspec.filesystem("memory")
    for name, data in BESIDE:
        filesystem.pipe(f"/pictures/{name}", data)
    items = read("memory://pictures")
    assert list(zip([item.key for item in items], statuses(items), strict=True)) == ROWS
    assert items[0].source == "memory://pictures/a.jpg"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("folders", [[""], ["train/", "test/"]])
def test_hugging_faces_image_folder(tmp_path: Path, kind: str, folders: list[str]) -> None:
    rows = [{"file_name": "a.jpg", "text": "a dog"}, {"file_name": "sub/b.png", "text": 'a "big, cat'}]
    for folder in folders:
        fill(tmp_path / folder, [("a.jpg", b"a"), ("sub/b.png", b"b"), ("a.txt", b"another")])
        where = tmp_path / folder / f"metadata.{kind}"
        if kind == "jsonl":
            where.write_text("\n".join(map(json.dumps, rows)))
        elif kind == "csv":
            where.write_text('file_name,text\na.jpg,a dog\nsub/b.png,"a ""big, cat"\n')
        else:
            pq.write_table(pa.Table.from_pylist(rows), where)
    items = read(str(tmp_path))
    assert [(item.image, item.captions) for item in items] == [
        (b"a", ("a dog",)),
        (b"b", ('a "big, cat',)),
    ] * len(folders)


def img2dataset(folder: Path) -> str:
    rows = {
        "key": ["0", "1"],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "404"],
        "caption": ["a dog", "a cat"],
    }
    for shard in ("00000", "00001"):
        fill(folder, [(f"{shard}.tar", pack(sample("0"))), (f"{shard}_stats.json", b'{"successes": 1}')])
        pq.write_table(pa.table(rows), folder / f"{shard}.parquet")
    return str(folder)


def test_all_of_img2datasets_folder(tmp_path: Path) -> None:
    url = img2dataset(tmp_path)
    assert read(f"{url}/*") == read(f"{url}/*.tar")
    assert statuses(read(f"{url}/*")) == ["ok", "download_failed"] * 2
    for shard in ("00000", "00001"):  # its output format "parquet": images in columns
        (tmp_path / f"{shard}.tar").unlink()
        pq.write_table(pa.table({"jpg": [b"a"], "caption": ["a dog"]}), tmp_path / f"{shard}.parquet")
    assert statuses(read(f"{url}/*")) == ["ok"] * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("0.tar", pack(sample("0"))), ("0.json", b"{}")], "name its files, for example '{}/*.tar'"),
        ([("sub/0.tar.gz", b"")], "name its files, for example '{}/sub/*.tar.gz'"),
        ([("x.parquet", b"PAR1"), ("notes.md", b"")], "name its files, for example '{}/*.parquet'"),
        ([("ann/c.json", b"{}"), ("images/a.jpg", b"a")], "name its files, for example '{}/ann/*.json'"),
        ([("a.jpg", b"a"), ("b.jpg", b"b")], "images without texts beside them"),
        (
            [("a.jpg", b"a"), ("a.json", b'{"caption": "a dog"}')],
            "--format folder takes the captions of these",
        ),
        ([("a.jpg", b"a"), ("a.json", b"{}"), ("c.json", b"{}")], "name its files, for example '{}/*.json'"),
        ([("notes.md", b"")], "holds no tar, no table and no image"),
        ([], "holds no tar, no table and no image"),
    ],
)
def test_a_folder_says_what_to_give(tmp_path: Path, files: Files, words: str) -> None:
    url = fill(tmp_path / "corpus", files)
    (tmp_path / "corpus").mkdir(exist_ok=True)
    with pytest.raises(UserError) as caught:
        read(url)
    assert words.format(url) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "*.tar'" not in str(caught.value) or any(".tar" in name for name, _ in files)


def test_format_folder_takes_images_alone(tmp_path: Path) -> None:
    url = fill(tmp_path, [("a.jpg", b"a"), ("x.tsv", b"filepath\ttitle\n")])
    assert statuses(read(url, format="folder")) == ["missing_caption"]
    with pytest.raises(UserError, match="wants the folder"):
        read(f"{url}/a.jpg", format="folder")
    with pytest.raises(UserError, match="is an image: give its folder"):
        read(f"{url}/a.jpg")
    with pytest.raises(UserError, match="folder without images"):
        read(fill(tmp_path / "none", [("x.tsv", b"")]), format="folder")
