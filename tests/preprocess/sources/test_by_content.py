"""What a file holds decides how it is read: when it is extracted, and when its images are read again."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.pipeline.errors import UserError
from macco.pipeline.pictures import read_image_bytes
from macco.preprocess.sources import SourceImage, plan
from macco.train.data import crops
from tests.support.packed import pack, read, sample, statuses


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


def again(items: list[SourceImage]) -> list[bytes]:
    """The images as training reads them again, which are those that `read_image_bytes` finds."""
    places = [(item.source, item.member, item.offset, item.size) for item in items if item.status == "ok"]
    found = [crops.read(*place) for place in places]
    assert found == [read_image_bytes(*place) for place in places]
    return found


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=2)
    return out.getvalue()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["0.tar", "0.TAR.GZ", "0.tgz", "0.tar.zst", "0.parquet", "0"])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_tar_by_any_name(tmp_path: Path, packer: str, name: str, place: str) -> None:
    data = PACKERS[packer](pack(sample("0") + sample("ü") + sample("./d/2")))
    root = str(tmp_path) if place == "local" else f"memory://named/{packer}/{name}"
    with fsspec.open(f"{root}/{name}", "wb") as stream:
        stream.write(data)
    items = read(f"{root}/{name}")
    assert statuses(items) == ["ok"] * 3
    assert (
        again(items)
        == [item.image for item in items]
        == [b"image of 0", "image of ü".encode(), b"image of ./d/2"]
    )
    assert [item.offset is None for item in items] == [packer != "plain"] * 3
    assert plan([f"{root}/{name}"])[0].name == "0"


@pytest.mark.parametrize("name", ["x.pq", "x", "X.PARQUET", "x.tar", "x.tsv", "x.parquet"])
def test_a_parquet_by_any_name(tmp_path: Path, name: str) -> None:
    table = pa.table({"image": [b"a", b"b", b"c"], "caption": ["x", "y", "z"]})
    (tmp_path / name).write_bytes(parquet(table))
    items = read(f"{tmp_path}/{name}")
    assert again(items) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("packer", ["gzip", "bz2", "xz", "zstd"])
@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz", "x.jsonl", "x.json.zst"])
def test_tables_are_read_through_compression(tmp_path: Path, packer: str, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    text = b"filepath\ttitle\na.jpg\tx\n" if "tsv" in name else b'{"image": "a.jpg", "text": "x"}\n'
    (tmp_path / name).write_bytes(PACKERS[packer](text))
    (item,) = read(f"{tmp_path}/{name}")
    assert (item.captions, item.image) == (("x",), b"a")


@pytest.mark.parametrize("packer", ["gzip", "bz2", "xz", "zstd"])
@pytest.mark.parametrize("cut", [12, 0.5, -9])
def test_broken_compression_is_a_status(tmp_path: Path, packer: str, cut: float) -> None:
    rest = b"".join(os.urandom(600) for _ in range(9))
    data = PACKERS[packer](pack([*sample("0"), ("1.jpg", rest), ("1.txt", b"x")]))
    whole = data[: round(cut * len(data)) if isinstance(cut, float) else cut]
    (tmp_path / "0.tar").write_bytes(whole)
    found = statuses(read(f"{tmp_path}/0.tar"))
    assert found[-1] == "truncated_tar"
    assert found.count("truncated_tar") == 1
    with pytest.raises((OSError, KeyError)):
        read_image_bytes(f"{tmp_path}/0.tar", "1.jpg" if cut != -9 else "9.jpg", None, None)
    (tmp_path / "x.jsonl").write_bytes(PACKERS[packer](b'{"image": "a.jpg", "text": "x"}\n' * 99)[:-9])
    with pytest.raises(UserError, match="cannot read"):
        read(f"{tmp_path}/x.jsonl")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x04\x22\x4d\x18", "is lz4"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"\x1f\x9d\x90", "is compress"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        (b"ARROW1\0\0", "is an Arrow IPC (Feather) file"),
        (gzip.compress(parquet(pa.table({"x": [1]}))), "a Parquet file inside gzip: decompress it"),
    ],
)
@pytest.mark.parametrize("name", ["0.tar", "0.parquet", "0.tsv", "0"])
def test_what_is_not_read_is_refused_by_its_name(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        plan([f"{tmp_path}/{name}"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_that_the_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(pack(sample("0")))
    (tmp_path / "x.parquet").write_bytes(parquet(pa.table({"image": [b"a"], "caption": ["x"]})))
    for name, given, words in (
        ("0.tar", "parquet", "a tar file: give --format webdataset"),
        ("x.parquet", "table", "a Parquet file: give --format parquet"),
    ):
        with pytest.raises(UserError, match=words):
            plan([f"{tmp_path}/{name}"], format=given)


TEXTS = ["x", "y", None, "x", "z"]
LISTS = [["x", "v"], ["y"], None, [], ["z"]]
STRINGS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
    "dictionary of large": pa.dictionary(pa.int32(), pa.large_string()),
    "binary": pa.binary(),
    "binary_view": pa.binary_view(),
    "list": pa.list_(pa.string()),
    "list of views": pa.list_(pa.string_view()),
    "list view": pa.list_view(pa.string()),
    "large list": pa.large_list(pa.large_string()),
    "list of dictionary": pa.list_(pa.dictionary(pa.int8(), pa.string())),
}


def column(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type):
        flat = pa.array(values, pa.list_(pa.string()))
        return pa.ListArray.from_arrays(
            flat.offsets, column(kind.value_type, flat.values.to_pylist()), mask=flat.is_null()
        )
    return pa.array(values, kind)


@pytest.mark.parametrize("kind", STRINGS)
@pytest.mark.parametrize("rows_per_shard", [2, 1000])
def test_captions_and_keys_of_any_arrow_type(tmp_path: Path, kind: str, rows_per_shard: int) -> None:
    lists = "list" in kind
    captions = column(STRINGS[kind], LISTS if lists else TEXTS)
    keys = column(pa.string() if lists else STRINGS[kind], ["k", "l", "k", "m", "n"])
    pq.write_table(
        pa.table({"image": [b"a", b"b", b"c", b"d", b"e"], "caption": captions, "id": keys}),
        tmp_path / "x.parquet",
    )
    items = read(f"{tmp_path}/x.parquet", key_field="id", rows_per_shard=rows_per_shard)
    assert [item.key for item in items] == ["k", "l", "m", "n"]
    good = [[one for one in item.captions if isinstance(one, str)] for item in items]
    assert good == ([["x", "v"], ["y"], [], ["z"]] if lists else [["x"], ["y"], ["x"], ["z"]])
    assert again(items) == [b"a", b"b", b"d", b"e"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(1),
        pa.dictionary(pa.int8(), pa.binary()),
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        pa.struct([("path", pa.string_view()), ("bytes", pa.binary_view())]),
        pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
    ],
    ids=str,
)
def test_images_of_any_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    values: list[Any] = [b"a", b"b", b"c"]
    if pa.types.is_struct(kind):
        values = [{"bytes": value, "path": None} for value in values]
    pq.write_table(pa.table({"image": column(kind, values), "text": ["x", "y", "z"]}), tmp_path / "x.pq")
    assert again(read(f"{tmp_path}/x.pq")) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_paths_of_any_arrow_type(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "b::c.jpg").write_bytes(b"b")
    paths = column(STRINGS[kind], ["a.jpg", None, "b::c.jpg", "a.jpg"])
    pq.write_table(pa.table({"filepath": paths, "title": list("wxyz")}), tmp_path / "x.pq")
    items = read(f"{tmp_path}/x.pq")
    assert statuses(items) == ["ok", "ok", "missing_image", "ok"]
    assert again(items) == [b"a", b"b"]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("between", [1, 2, 20])
def test_tars_one_after_another(tmp_path: Path, packer: str, between: int) -> None:
    parts = []
    for number in range(3):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in sample(str(number)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            parts.append(out.getvalue() + b"\0" * 512 * between)
    (tmp_path / "0.tar").write_bytes(b"".join(map(PACKERS[packer], parts)))
    items = read(f"{tmp_path}/0.tar")
    assert statuses(items) == ["ok"] * 3
    assert again(items) == [b"image of 0", b"image of 1", b"image of 2"]


@pytest.mark.parametrize("tail", [b"garbage", b"x" * 512, b"\0" * 700 + b"x", b"<html>" * 400])
def test_what_follows_a_tar_is_told(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(pack(sample("0")) + tail)
    items = read(f"{tmp_path}/0.tar")
    assert statuses(items) == ["ok", "truncated_tar"]
    assert "follows the tar's end" in str(items[1].error)


@pytest.mark.parametrize("zeros", [0, 1, 511, 512, 9999])
def test_zeros_after_a_tar_are_nothing(tmp_path: Path, zeros: int) -> None:
    (tmp_path / "0.tar").write_bytes(pack(sample("0")) + b"\0" * zeros)
    assert statuses(read(f"{tmp_path}/0.tar")) == ["ok"]


def linked(compress: str = "") -> bytes:
    """Hard and symbolic links, to what stands before and after, to links, with long names, and to nothing."""
    out = io.BytesIO()
    long = "d/" + "long" * 60
    with tarfile.open(fileobj=out, mode=f"w:{compress}") as archive:  # type: ignore[call-overload]

        def add(
            name: str, data: bytes | None = None, target: str = "", kind: bytes = tarfile.SYMTYPE
        ) -> None:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = kind, target
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data or b""))

        for key, target, kind in (
            ("d/1", "d/0.jpg", tarfile.LNKTYPE),
            ("d/2", "0.jpg", tarfile.SYMTYPE),
            ("3", "d/./0.jpg", tarfile.SYMTYPE),
            ("d/4", "../3.jpg", tarfile.SYMTYPE),
            ("5", f"{long}.jpg", tarfile.LNKTYPE),
            ("6", "/etc/passwd", tarfile.SYMTYPE),
            ("7", "7.jpg", tarfile.SYMTYPE),
        ):
            add(f"{key}.jpg", None, target, kind)
            add(f"{key}.txt", b"a dog")
            if key == "d/2":
                add("d/0.jpg", b"target")
                add("d/0.txt", b"a dog")
        add(f"{long}.jpg", b"last")
        add(f"{long}.txt", None, "0.txt", tarfile.SYMTYPE)
    return out.getvalue()


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(linked())
    items = read(f"{tmp_path}/0.tar")
    assert [item.key for item in items] == [
        "d/1",
        "d/2",
        "d/0",
        "3",
        "d/4",
        "5",
        "6",
        "7",
        "d/" + "long" * 60,
    ]
    assert statuses(items) == [*["ok"] * 6, "missing_image", "missing_image", "ok"]
    assert again(items) == [b"target"] * 5 + [b"last"] * 2
    assert items[-1].captions == ("a dog",)
    assert "'6.jpg' links to '/etc/passwd', which is not in the tar" in str(items[6].error)


def test_links_of_a_compressed_tar_are_rows(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(linked("gz"))
    items = read(f"{tmp_path}/0.tar")
    assert len(items) == 9
    assert [item.key for item in items if item.status == "ok"] == ["d/0"]
    assert "a link inside a compressed tar: decompress" in str(items[0].error)


@pytest.mark.parametrize(
    "ending",
    ["jpg", "JPG", "jpeg", "PNG", "webp", "gif", "bmp", "tif", "TIFF", "jfif", "avif", "jp2", "heic", "svg"],
)
def test_images_of_any_ending(tmp_path: Path, ending: str) -> None:
    (tmp_path / "0.tar").write_bytes(pack([(f"0.{ending}", b"image"), ("0.txt", b"a dog")]))
    (item,) = read(f"{tmp_path}/0.tar")
    assert (item.image, item.member) == (b"image", f"0.{ending}")


def test_a_double_colon_is_two_patterns_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.tar", "b0.tar", "b1.tar", "c::d.tar"):
        (tmp_path / name).write_bytes(pack(sample(name.removesuffix(".tar"))))
    items = read("a.tar::b{0..1}.tar")
    assert [item.key for item in items] == ["a", "b0", "b1"]
    assert again(items) == [item.image for item in items]
    items = read("c::d.tar")
    assert [item.key for item in items] == ["c::d"]
    assert again(items) == [b"image of c::d"]
    for pattern, words in (
        ("a.tar::none.tar", "none.tar"),
        ("a.tar::", "empty part"),
        ("::a.tar", "empty part"),
        ("pipe:cat a.tar", "is a command"),
        ("pipe:cat {a,b0}.tar::b1.tar", "is a command"),
        ("a.tar::pipe:cat b0.tar", "is a command"),
        ("zip://a.csv::b.zip", "inside an archive"),
        ("tar://0.jpg::a.tar", "inside an archive"),
    ):
        with pytest.raises(UserError) as caught:
            plan([pattern])
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_cached_url_is_one(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/cached/0.tar", pack(sample("0")))
    for url in ("simplecache::memory://cached/0.tar", "memory://cached/0.tar::memory://cached/0.tar"):
        assert [item.key for item in read(url)] == ["0"]
