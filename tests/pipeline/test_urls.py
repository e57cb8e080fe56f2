import os
import sys
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.pipeline import urls
from macco.pipeline.errors import UserError
from macco.pipeline.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("00000.tar", "00001.tar", "00002.tar", "a.tsv", "b.tsv", "odd[1]{x}.tar"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.fixture
def memory() -> str:
    filesystem = fsspec.filesystem("memory")
    for name in ("00000.tar", "00001.tar"):
        filesystem.pipe(f"/urls/{name}", b"12345")
    return "memory://urls"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{00000..00002}.tar", ["00000.tar", "00001.tar", "00002.tar"]),
        ("{b,a}.tsv", ["b.tsv", "a.tsv"]),
        ("0000{2,{0..1}}.tar", ["00002.tar", "00000.tar", "00001.tar"]),
        ("0*.tar", ["00000.tar", "00001.tar", "00002.tar"]),
        ("00001.tar", ["00001.tar"]),
        ("odd[1]{x}.tar", ["odd[1]{x}.tar"]),
        ("{00000,[ab]}.t{ar,sv}", None),
    ],
)
def test_patterns(folder: Path, pattern: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(UserError, match=r"00000\.tsv"):
            urls.expand([f"{folder}/{pattern}"])
    else:
        assert urls.expand([f"{folder}/{pattern}"]) == [f"{folder}/{name}" for name in names]


def test_order_is_kept_and_doubles_go(folder: Path) -> None:
    names = urls.expand([f"{folder}/b.tsv", f"file://{folder}/a.tsv", f"{folder}/*.tsv"])
    assert names == [f"{folder}/b.tsv", f"{folder}/a.tsv"]


def test_relative_names_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert urls.expand(["a.tsv"]) == [os.path.join(os.getcwd(), "a.tsv")]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("nothing-*.tar", "no file"),
        ("{00000..00003}.tar", "00003.tar"),
        ("{00000..00003.tar", "partner"),
        ("00000}.tar", "partner"),
        ("{3..1}.tar", "backwards"),
        ("{root}.tar", "neither"),
        ("{0..1000000}.tar", "more than"),
        ("", "is a folder"),
    ],
)
def test_mistakes_name_the_pattern(folder: Path, pattern: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        urls.expand([f"{folder}/{pattern}"])
    assert words in str(caught.value)
    assert f"{folder}/{pattern}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_looked_in_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=f"looked in {folder}/none"):
        urls.expand([f"{folder}/none/*.tar"])


def test_memory_filesystem(memory: str) -> None:
    both = [f"{memory}/00000.tar", f"{memory}/00001.tar"]
    assert urls.expand([memory + "/{00000..00001}.tar"]) == both
    assert urls.expand([memory + "/*.tar"]) == both
    for missing in ("/{00000..00002}.tar", "/*.zip", "-none/00000.tar"):
        with pytest.raises(UserError, match="no file"):
            urls.expand([memory + missing])
    with urls.open_url(both[0]) as stream:
        assert stream.read() == b"12345"
    assert urls.exists(both[0])
    assert not urls.exists(memory + "/2.tar")
    assert urls.fingerprint(both[0])["size"] == 5


@pytest.mark.parametrize("url", ["nosuch://bucket/a.tar", "nosuch://bucket/*.tar"])
def test_unknown_protocol(url: str) -> None:
    with pytest.raises(UserError, match="nosuch"):
        urls.expand([url])


def test_fingerprint_follows_the_file(folder: Path) -> None:
    name = str(folder / "a.tsv")
    before = urls.fingerprint(name)
    assert before["size"] == 5
    os.utime(name, (1, 1))
    assert urls.fingerprint(name) == {**before, "mtime": 1}


@pytest.mark.parametrize(
    ("root", "path", "whole"),
    [
        ("/data", "a/b.jpg", "/data/a/b.jpg"),
        ("/data/", "b.jpg", "/data/b.jpg"),
        ("/data", "/other/b.jpg", "/other/b.jpg"),
        ("/data", "s3://x/b.jpg", "s3://x/b.jpg"),
        ("s3://x/y", "b.jpg", "s3://x/y/b.jpg"),
        ("memory://", "b.jpg", "memory://b.jpg"),
    ],
)
def test_join(root: str, path: str, whole: str) -> None:
    assert urls.join(root, path) == whole


def test_parts() -> None:
    assert urls.stem("s3://bucket/x/00000.tar.gz") == "00000"
    assert urls.stem("cc3m.train.tsv") == "cc3m.train"
    assert urls.folder("s3://bucket/x/00000.tar") == "s3://bucket/x"
    assert urls.folder("memory://00000.tar") == "memory://"


@given(first=st.integers(0, 300), count=st.integers(1, 40), width=st.integers(1, 6))
def test_a_range_means_all_its_numbers(first: int, count: int, width: int) -> None:
    filesystem = fsspec.filesystem("memory")
    names = [f"memory://range/{number:0{width}}.tar" for number in range(first, first + count)]
    for name in names:
        filesystem.pipe(name, b"")
    last = first + count - 1
    braces = "{" + f"{first:0{width}}..{last:0{width}}" + "}"
    assert urls.expand([f"memory://range/{braces}.tar"]) == names


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/store", "s3"), ("gs://bucket/store", "gs")])
def test_a_protocol_without_its_package_names_the_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, extra, raising=False)  # of an earlier test
    with pytest.raises(UserError, match=rf"pip install 'macco\[{extra}\]'"):
        Store.open(url)


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot open 'xyz://a'"):
        Store.open("xyz://a")
