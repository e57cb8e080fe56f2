"""Tables as a source, and the plan of shards."""

import json
import pickle
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.preprocess.sources import Shard, plan
from tests.support.packed import read, sample, statuses, write


class TestTables:
    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        (tmp_path / "images").mkdir()
        for name in "abc":
            (tmp_path / "images" / f"{name}.jpg").write_bytes(f"image {name}".encode())
        return tmp_path

    def test_tsv_rows_of_one_image_are_one_item(self, images: Path) -> None:
        lines = [
            "filepath\ttitle\tlong",
            "images/b.jpg\tone b\tx",
            "images/a.jpg\tone a\tx",
            "images/b.jpg\tmore b\tx",
        ]
        (images / "train.tsv").write_text("\n".join(lines))
        first, second = read(f"{images}/train.tsv")
        assert (first.key, first.captions, first.image) == ("images/b.jpg", ("one b", "more b"), b"image b")
        assert (first.source, first.member) == (f"{images}/images/b.jpg", "images/b.jpg")
        assert (first.offset, first.size) == (None, 7)
        assert second.captions == ("one a",)

    def test_fields_root_and_delimiter(self, images: Path) -> None:
        (images / "x.csv").write_text('id,pic,en,de\n7,a.jpg,"a, dog",ein Hund\n8,b.jpg,"two\nlines",\n')
        options = {"image_field": "pic", "key_field": "id", "image_root": f"{images}/images"}
        first, second = read(f"{images}/x.csv", caption_field=["en", "de"], **options)
        assert (first.key, first.captions, first.image) == ("7", ("a, dog", "ein Hund"), b"image a")
        assert second.captions[0] == "two\nlines"
        assert statuses([second]) == ["ok", "missing_caption"]

    def test_bad_rows(self, images: Path) -> None:
        lines = [
            b"\xef\xbb\xbffilepath\ttitle",
            b"images/a.jpg\tcaf\xe9",
            b"images/a.jpg\tfine",
            b"images/none.jpg\tx",
        ]
        lines += [b"images/b.jpg", b"images\tfolder", b"\tno path", b"images/c.jpg\tlast"]
        (images / "x.tsv").write_bytes(b"\n".join(lines))
        items = read(f"{images}/x.tsv")
        assert statuses(items) == [
            "bad_encoding",
            "ok",
            "missing_image",
            "unreadable_image",
            "missing_image",
            "ok",
            "bad_row",
        ]
        assert items[-1].key == "line-5"

    def test_shards_divide_the_images(self, images: Path) -> None:
        rows = [f"images/{name}.jpg\tcaption {number}" for number in range(3) for name in "abc"]
        (images / "x.tsv").write_text("\n".join(["filepath\ttitle", *rows, "broken"]))
        shards = plan([f"{images}/x.tsv"], rows_per_shard=2, dataset="d")
        assert [(shard.name, shard.start, shard.stop) for shard in shards] == [
            ("x-00000", 0, 2),
            ("x-00001", 2, 4),
        ]
        parts = [list(shard.read()) for shard in shards]
        assert [[item.key for item in part] for part in parts] == [
            ["images/a.jpg", "images/b.jpg"],
            ["images/c.jpg", "line-11"],
        ]
        assert [item for part in parts for item in part] == read(f"{images}/x.tsv")

    def test_a_table_without_rows_is_an_empty_shard(self, images: Path) -> None:
        (images / "x.tsv").write_text("filepath\ttitle\n")
        assert len(plan([f"{images}/x.tsv"])) == 1
        assert read(f"{images}/x.tsv") == []

    @pytest.mark.parametrize(
        ("name", "data", "options", "words"),
        [
            ("x.tsv", b"url\ttitle\na\tb", {}, "no column filepath"),
            (
                "x.tsv",
                b"filepath\ttitle\na\tb",
                {"caption_field": "en"},
                "no column 'en'; it has filepath, title",
            ),
            ("x.tsv", b"filepath\ttitle\na\tb", {"key_field": "id"}, "no column 'id'"),
            ("x.tsv", b"", {}, "no column"),
            ("x.tsv", b"\xff\xfef\0\t\0", {}, "no column"),
            ("x.parquet", b"hello", {}, "cannot read"),
            ("x.json", b"{", {}, "cannot read"),
            ("x.json", b'{"images": []}', {}, "no COCO captions file"),
            ("x.json", b"[]", {}, "no COCO captions file"),
            ("x.zip", b"", {}, "cannot tell the format"),
            ("x.tsv", b"filepath\ttitle\ttitle\na\tb\tc", {}, "2 columns 'title'"),
            ("x.csv", b"filepath,title,filepath\na,b,c", {}, "2 columns 'filepath'"),
            ("x.tsv", b"", {"format": "tsv"}, "unknown format 'tsv'"),
            ("x.tsv", b"", {"rows_per_shard": 0}, "at least 1"),
        ],
    )
    def test_mistakes_are_one_line(
        self, tmp_path: Path, name: str, data: bytes, options: dict[str, object], words: str
    ) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as caught:
            read(f"{tmp_path}/{name}", **options)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_coco(self, images: Path) -> None:
        document = {
            "images": [
                {"id": 9, "file_name": "b.jpg"},
                {"id": 3, "file_name": "a.jpg"},
                {"id": 4, "file_name": "c.jpg"},
            ],
            "annotations": [
                {"id": 20, "image_id": 3, "caption": "second\n"},
                {"id": 11, "image_id": 9, "caption": "a b"},
                {"id": 10, "image_id": 3, "caption": "first"},
                {"id": 30, "image_id": 5, "caption": "of no image"},
                {"id": 31, "image_id": 9, "caption": "\ud800"},
            ],
        }
        (images / "captions.json").write_text(json.dumps(document))
        items = read(f"{images}/captions.json", image_root=f"{images}/images")
        assert [(item.key, item.image) for item in items[:3]] == [
            ("9", b"image b"),
            ("3", b"image a"),
            ("4", b"image c"),
        ]
        assert items[1].captions == ("first", "second")
        assert statuses(items) == ["ok", "bad_encoding", "ok", "ok", "missing_caption", "missing_image"]

    def test_two_coco_images_of_one_id_are_refused_by_name(self, images: Path) -> None:
        document = {
            "images": [{"id": 1, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
        }
        (images / "x.json").write_text(json.dumps(document))
        with pytest.raises(UserError, match="two images of the id 1, 'a"):
            read(f"{images}/x.json")

    def test_coco_ids_are_the_same_however_they_are_written(self, images: Path) -> None:
        document = {
            "images": [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "b.jpg"}],
            "annotations": [
                {"id": number, "image_id": image, "caption": text}
                for number, (image, text) in enumerate([("1", "x"), (1.0, "y"), (2, ["z", "w"]), (2, 5)])
            ],
        }
        (images / "x.json").write_text(json.dumps(document))
        items = read(f"{images}/x.json", image_root=f"{images}/images")
        assert [(item.key, item.image) for item in items] == [("1", b"image a"), ("2", b"image b")]
        assert [one for item in items for one in item.captions[:2]] == ["x", "y", "z", "w"]
        assert statuses(items)[-1] == "missing_caption"

    @pytest.mark.parametrize("struct", [False, True])
    @pytest.mark.parametrize("key", [None, "id"])
    def test_parquet_with_bytes(self, images: Path, struct: bool, key: str | None) -> None:
        size = 300
        pictures = [f"image {row}".encode() for row in range(size)]
        rows = {
            "image": [{"bytes": one, "path": None} for one in pictures] if struct else pictures,
            "caption": [[f"caption {row}", "another"] for row in range(size)],
            "id": [row // 3 for row in range(size)],
        }
        pq.write_table(pa.table(rows), images / "x.parquet", row_group_size=70)
        items = read(f"{images}/x.parquet", key_field=key, rows_per_shard=37)
        step = 3 if key else 1
        assert [item.image for item in items] == pictures[::step]
        assert [item.member for item in items] == [f"image/{row}" for row in range(0, size, step)]
        assert items[1].captions[0] == f"caption {step}"
        assert len(items[1].captions) == 2 * step
        assert items[1].key == ("1" if key else "000000001")
        assert len(list(plan([f"{images}/x.parquet"], key_field=key, rows_per_shard=37))) == (3 if key else 9)

    @pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet", "floats.parquet"])
    def test_a_caption_is_of_the_image_that_its_row_names_whatever_its_key(
        self, images: Path, name: str
    ) -> None:
        none = float("nan") if name == "floats.parquet" else "" if name == "x.csv" else None
        rows = [(none, "a"), (7, "b"), (none, "c"), (7, "c"), (7, "b"), (none, "c")]
        if name == "floats.parquet":
            rows = [(float(key or "nan"), letter) for key, letter in rows]
        told = [
            {"id": key, "filepath": f"images/{letter}.jpg", "title": f"a {letter}"} for key, letter in rows
        ]
        if name == "x.csv":
            lines = ["id,filepath,title", *(",".join(map(str, row.values())) for row in told)]
            (images / name).write_text("\n".join(lines))
        elif name == "x.jsonl":
            (images / name).write_text("\n".join(map(json.dumps, told)))
        else:
            pq.write_table(pa.Table.from_pylist(told), images / name)
        items = read(f"{images}/{name}", key_field="id", dataset="d")
        assert [item.image for item in items] == [b"image a", b"image b", b"image c", b"image c"]
        assert [item.key for item in items][::2] == ["row-0", "row-2"]
        assert statuses(items) == ["ok", "ok", "duplicate_key", "ok", "ok", "ok"]
        assert [text for item in items for text in item.captions if isinstance(text, str)] == [
            "a a", "a b", "a b", "a c", "a c",
        ]  # fmt: skip

    def test_images_without_a_key_in_a_parquet_are_their_own(self, images: Path) -> None:
        rows = {"image": [b"1", b"2", b"3"], "caption": list("xyz"), "id": [None, "k", None]}
        pq.write_table(pa.table(rows), images / "x.parquet")
        assert [(one.image, one.captions) for one in read(f"{images}/x.parquet", key_field="id")] == [
            (b"1", ("x",)), (b"2", ("y",)), (b"3", ("z",)),
        ]  # fmt: skip

    def test_the_names_in_a_map_are_no_captions(self, images: Path) -> None:
        texts = pa.array([[("en", "a dog")]], pa.map_(pa.string(), pa.string()))
        pq.write_table(pa.table({"filepath": ["images/a.jpg"], "title": texts}), images / "x.parquet")
        assert statuses(read(f"{images}/x.parquet")) == ["missing_caption"]

    def test_parquet_with_paths(self, images: Path) -> None:
        rows = {
            "filepath": ["images/a.jpg", None, "images/b.jpg", "images/a.jpg"],
            "title": ["a", "x", None, "more"],
        }
        pq.write_table(pa.table(rows), images / "x.parquet")
        items = read(f"{images}/x.parquet")
        assert [item.image for item in items] == [b"image a", None, b"image b"]
        assert statuses(items) == ["ok", "ok", "missing_image", "missing_caption"]

    def test_parquet_struct_falls_back_to_its_path(self, images: Path) -> None:
        rows = {
            "image": [{"bytes": None, "path": "images/a.jpg"}, {"bytes": None, "path": None}, None],
            "text": list("abc"),
        }
        pq.write_table(pa.table(rows), images / "x.parquet")
        assert statuses(read(f"{images}/x.parquet")) == ["ok", "missing_image", "missing_image"]

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abcde"), st.text("xyz ", min_size=0, max_size=4)), max_size=30),
        st.integers(1, 7),
    )
    def test_rows_in_are_rows_out(self, rows: list[tuple[str, str]], per_shard: int) -> None:
        table = "filepath\ttitle\n" + "".join(f"{path}.jpg\t{title}\n" for path, title in rows)
        fsspec.filesystem("memory").pipe(f"/rows/{abs(hash(table))}.tsv", table.encode())
        items = read(f"memory://rows/{abs(hash(table))}.tsv", rows_per_shard=per_shard)
        assert sum(len(item.captions) for item in items) == len(rows)
        assert [item.key for item in items] == list(dict.fromkeys(f"{path}.jpg" for path, _ in rows))


class TestPlan:
    def test_names(self, tmp_path: Path) -> None:
        for name in ("x/0.tar", "y/0.tar", "y/1.tar", "z/x/0.tar"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write(tmp_path / name, sample("0"))
        shards = plan([f"{tmp_path}/{{x,y}}/*.tar"])
        assert [(shard.dataset, shard.name) for shard in shards] == [("x", "x-0"), ("y", "y-0"), ("y", "1")]
        shards = plan([f"{tmp_path}/{{x,y}}/*.tar"], dataset="d")
        assert [shard.name for shard in shards] == ["x-0", "y-0", "1"]
        with pytest.raises(UserError, match="same shard 'x-0'"):
            plan([f"{tmp_path}/x/0.tar", f"{tmp_path}/z/x/0.tar"])

    def test_shards_travel(self, tmp_path: Path) -> None:
        (shard,) = plan([write(tmp_path / "0.tar", sample("0"))])
        data = pickle.dumps(shard)
        assert len(data) < 500
        assert [item.key for item in pickle.loads(data).read()] == ["0"]
        assert isinstance(shard, Shard)
