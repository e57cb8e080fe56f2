"""Webdataset tars as a source."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.preprocess.sources import tar
from tests.support.packed import Files, pack, read, sample, statuses, write


class TestTar:
    def test_members_become_items(self, tmp_path: Path) -> None:
        url = write(tmp_path / "00000.tar", sample("000", " a dog\n") + sample("dir/001", "Ein Käse"))
        first, second = read(url)
        assert (first.key, first.captions, first.image) == ("000", ("a dog",), b"image of 000")
        assert (second.key, second.captions, second.member) == ("dir/001", ("Ein Käse",), "dir/001.jpg")
        assert first.source == url

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    def test_offset_and_size_find_the_bytes(self, tmp_path: Path, form: int) -> None:
        path = tmp_path / "a.tar"
        names = (
            ["short", "d/" + "long" * 20]
            if form == tarfile.USTAR_FORMAT
            else ["short", "long" * 60, "ü" * 70]
        )
        path.write_bytes(pack([file for name in names for file in sample(name)], form))
        items = read(str(path))
        assert [item.key for item in items] == names
        for item in items:
            assert item.offset is not None
            assert item.size is not None
            assert path.read_bytes()[item.offset : item.offset + item.size] == item.image

    def test_gzip_has_no_offset(self, tmp_path: Path) -> None:
        data = gzip.compress(pack(sample("0") + sample("1")))
        (tmp_path / "a.tar.gz").write_bytes(data)
        (tmp_path / "b.tgz").write_bytes(data[:-30])
        items = read(f"{tmp_path}/a.tar.gz")
        assert [(item.key, item.offset, item.image) for item in items] == [
            ("0", None, b"image of 0"),
            ("1", None, b"image of 1"),
        ]
        assert statuses(read(f"{tmp_path}/b.tgz"))[-1] == "truncated_tar"

    def test_memory_filesystem(self) -> None:
        fsspec.filesystem("memory").pipe("/sources/00000.tar", pack(sample("0")))
        (item,) = read("memory://sources/*.tar")
        assert (item.source, item.image) == ("memory://sources/00000.tar", b"image of 0")

    @pytest.mark.parametrize(
        ("text", "document", "names", "captions"),
        [
            ("t", {"captions": ["a", "b"], "caption": "c"}, None, ("a", "b")),
            ("t", {"caption": "c"}, None, ("t",)),
            (None, {"caption": "c"}, None, ("c",)),
            ("t", {"caption": "c"}, "caption", ("c",)),
            ("t", {"alt": ["x", "y"]}, ["txt", "alt"], ("t", "x", "y")),
            ("t", None, None, ("t",)),
        ],
    )
    def test_where_captions_come_from(
        self, tmp_path: Path, text: str | None, document: object, names: object, captions: tuple[str, ...]
    ) -> None:
        files: Files = [("0.jpg", b"i")]
        files += [("0.json", json.dumps(document).encode())] if document else []
        files += [("0.txt", text.encode())] if text else []
        (item,) = read(write(tmp_path / "a.tar", files), caption_field=names)
        assert item.captions == captions
        assert item.status == "ok"

    @pytest.mark.parametrize(
        ("files", "status"),
        [
            ([("0.txt", b"a dog")], "missing_image"),
            ([("0.jpg", b"i")], "missing_caption"),
            ([("0.jpg", b"i"), ("0.txt", b" \n")], "missing_caption"),
            ([("0.jpg", b"i"), ("0.json", b'{"url": "x"}')], "missing_caption"),
            ([("0.jpg", b"i"), ("0.json", b'{"caption": 3}')], "missing_caption"),
            ([("0.jpg", b"i"), ("0.json", b"{")], "bad_json"),
            ([("0.jpg", b"i"), ("0.json", b"[1]")], "bad_json"),
            ([("0.jpg", b"i"), ("0.json", b"[" * 100_000)], "bad_json"),
            ([("0.jpg", b"i"), ("0.json", b'{"caption": "\xff"}')], "bad_encoding"),
            ([("0.jpg", b"i"), ("0.json", b'{"caption": "\\ud800"}')], "bad_encoding"),
            ([("0.jpg", b"i"), ("0.txt", b"caf\xe9")], "bad_encoding"),
            ([("../0.jpg", b"i"), ("../0.txt", b"a dog")], "unsafe_name"),
            ([("/etc/0.jpg", b"i"), ("/etc/0.txt", b"a dog")], "unsafe_name"),
            ([("a/../../0.jpg", b"i"), ("a/../../0.txt", b"a dog")], "unsafe_name"),
        ],
    )
    def test_bad_samples_are_rows_and_neighbours_survive(
        self, tmp_path: Path, files: Files, status: str
    ) -> None:
        items = read(write(tmp_path / "a.tar", [*sample("a"), *files, *sample("z")]))
        assert statuses(items) == ["ok", status, "ok"]
        assert all(error for item in items[1:2] for _, _, error in item.rows())

    def test_duplicate_keys_keep_the_first_and_get_ids_of_their_own(self, tmp_path: Path) -> None:
        items = read(
            write(tmp_path / "a.tar", sample("0") + sample("1") + sample("0", "again") + sample("0"))
        )
        assert statuses(items) == ["ok", "ok", "duplicate_key", "duplicate_key"]
        assert [item.key for item in items] == ["0", "1", "0#2", "0#3"]
        assert items[2].member == "0.jpg"

    def test_only_neighbours_make_a_sample(self, tmp_path: Path) -> None:
        files = [("0.jpg", b"0"), ("1.jpg", b"1"), ("0.txt", b"zero"), ("1.txt", b"one")]
        items = read(write(tmp_path / "a.tar", files))
        assert statuses(items) == ["missing_caption", "missing_caption", "duplicate_key", "duplicate_key"]

    def test_oversized_members_are_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar, "MAX_BYTES", 100)
        files = [
            ("0.jpg", b"x" * 101),
            ("0.txt", b"a dog"),
            ("1.jpg", b"i"),
            ("1.json", b" " * 101),
            *sample("2"),
        ]
        items = read(write(tmp_path / "a.tar", files))
        assert statuses(items) == ["member_too_large", "member_too_large", "ok"]
        assert items[0].image is None
        assert items[0].size == 101

    def test_other_members_are_passed_over(self, tmp_path: Path) -> None:
        files = [
            ("./._0.jpg", b"mac"),
            ("./0.jpg", b"i"),
            ("./0.cls", b"7"),
            ("./0.seg.png", b"s"),
            ("./0.txt", b"a"),
        ]
        (item,) = read(write(tmp_path / "a.tar", [("README", b"hello"), *files]))
        assert (item.key, item.image, item.captions) == ("0", b"i", ("a",))

    def test_directories_and_links(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name, kind in (
                ("d.x", tarfile.DIRTYPE),
                ("l.jpg", tarfile.SYMTYPE),
                ("h.jpg", tarfile.LNKTYPE),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
            info = tarfile.TarInfo("0.jpg")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"i"))
        assert [item.key for item in read(f"{tmp_path}/a.tar")] == ["0"]

    def test_extensions_in_order_of_preference(self, tmp_path: Path) -> None:
        url = write(tmp_path / "a.tar", [("0.PNG", b"png"), ("0.jpg", b"jpg"), ("0.txt", b"a")])
        assert read(url)[0].image == b"jpg"
        assert read(url, image_field="png;jpg")[0].image == b"png"

    def test_corrupt_header_in_the_middle(self, tmp_path: Path) -> None:
        data = bytearray(pack(sample("0") + sample("1") + sample("2")))
        data[2048:2148] = b"\xff" * 100  # the header of 1.jpg
        (tmp_path / "a.tar").write_bytes(data)
        items = read(f"{tmp_path}/a.tar")
        assert statuses(items) == ["ok", "truncated_tar"]
        assert items[1].error
        assert "byte 2048" in items[1].error

    @pytest.mark.parametrize("data", [b"", b"no tar at all", b"\x1f" * 5000])
    def test_no_tar(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.tar").write_bytes(data)
        assert statuses(read(f"{tmp_path}/a.tar")) == ["truncated_tar"]

    def test_empty_tar(self, tmp_path: Path) -> None:
        assert read(write(tmp_path / "a.tar", [])) == []

    def test_img2dataset_rows_in_are_rows_out(self, tmp_path: Path) -> None:
        url = write(tmp_path / "00000.tar", sample("000000000") + sample("000000002"))
        rows = {
            "key": ["000000000", "000000001", "000000002", "000000003"],
            "status": ["success", "failed_to_download", "success", "failed_to_resize"],
            "error_message": [None, "HTTP Error 404", None, "bad"],
            "caption": ["a dog", "a cat", "a dog", None],
        }
        pq.write_table(pa.table(rows), tmp_path / "00000.parquet")
        items = read(url)
        assert statuses(items) == ["ok", "ok", "download_failed", "download_failed"]
        assert items[2].captions == ("a cat",)
        assert items[2].error == "failed_to_download: HTTP Error 404"
        (tmp_path / "00000.tar").write_bytes(pack(sample("000000000") + sample("000000002"))[:1600])
        damaged = read(url)
        assert statuses(damaged) == ["ok", "truncated_tar", "download_failed", "download_failed"]
        assert damaged[1].error
        assert "1 samples read, 1 lost" in damaged[1].error

    def test_stats_alone_tell_what_is_lost(self, tmp_path: Path) -> None:
        url = write(tmp_path / "00000.tar", sample("0"))
        (tmp_path / "00000_stats.json").write_text('{"count": 9, "successes": 3}')
        assert statuses(read(url)) == ["ok", "truncated_tar"]
        (tmp_path / "00000_stats.json").write_text("{")
        assert statuses(read(url)) == ["ok"]

    def test_strange_parquet_beside_a_tar(self, tmp_path: Path) -> None:
        url = write(tmp_path / "a.tar", sample("0"))
        pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
        assert statuses(read(url)) == ["ok"]
        (tmp_path / "a.parquet").write_bytes(b"broken")
        assert statuses(read(url)) == ["ok", "download_failed"]

    @settings(max_examples=150, deadline=None)
    @given(
        keys=st.lists(st.text("ab/ü", min_size=1, max_size=120), max_size=5),
        kinds=st.permutations(["jpg", "txt", "json"]),
        form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
        cut=st.floats(0, 1),
    )
    def test_any_cut_keeps_what_is_whole(
        self, keys: list[str], kinds: list[str], form: int, cut: float
    ) -> None:
        contents = {"jpg": b"j" * 700, "txt": b"a dog", "json": b"{}"}
        keys = list(dict.fromkeys(key.replace("/", "_/x") + "k" for key in keys))
        files = [(f"{key}.{kind}", contents[kind]) for key in keys for kind in kinds]
        data = pack(files, form)
        end = round(cut * len(data))
        fsspec.filesystem("memory").pipe("/cut/a.tar", data[:end])
        items = read("memory://cut/a.tar")
        ends = []
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            ends = [info.offset_data + info.size for info in archive if info.name.endswith(kinds[-1])]
        whole = [key for key, last in zip(keys, ends, strict=True) if last <= end]
        assert [item.key for item in items if item.status == "ok"][: len(whole)] == whole
        assert all(item.image == contents["jpg"] for item in items if item.status == "ok")
        assert [item.status for item in items].count("truncated_tar") <= 1
        if len(whole) < len(keys):
            assert items[-1].status == "truncated_tar"

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_damage_is_a_status(self, data: st.DataObject) -> None:
        raw = bytearray(pack(sample("a") + sample("b" * 150) + sample("ü"), tarfile.PAX_FORMAT))
        for _ in range(data.draw(st.integers(1, 5))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        fsspec.filesystem("memory").pipe("/cut/b.tar", bytes(raw))
        items = read("memory://cut/b.tar")
        assert len({item.key for item in items}) == len(items)
        for item in items:
            json.dumps([item.key, item.member, *(str(caption) for caption in item.captions)]).encode()
