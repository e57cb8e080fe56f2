"""The same input, or another? Nothing enters twice, nothing that is new is passed over, and nothing is lost."""

import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.extraction import run as runs
from macco.preprocess.extraction.retry import failed_samples
from macco.preprocess.extraction.run import Job, Summary, extract_shards
from macco.preprocess.extraction.shard import Extractor
from macco.preprocess.look.status import status
from macco.preprocess.sources import plan
from tests.support.drawn import jpeg
from tests.support.examples import examples
from tests.support.packed import write

CONFIG = ExtractConfig(device="cpu")
SETTINGS = CONFIG.settings()
Row = tuple[str, str | None]


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    """The models are loaded once."""
    loaded, patch = Extractor(CONFIG), pytest.MonkeyPatch()
    patch.setattr(runs, "Extractor", lambda config, *given: loaded)
    yield
    patch.undo()


def table(path: Path, numbers: list[int], alt: str = "cat", *, end: str = "") -> Path:
    """A TSV of some of the images 1.jpg, 2.jpg, ..., which lie beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        if not (image := path.parent / f"{number}.jpg").exists():
            image.write_bytes(jpeg(number))
    separator = "," if path.suffix == ".csv" else "\t"
    lines = [("filepath", "title", "alt")]
    lines += [(f"{number}.jpg", f"a red dog {number}", f"a blue {alt} {number}") for number in numbers]
    path.write_text("".join(separator.join(line) + "\n" for line in lines) + end)
    return path


def tar(path: Path, numbers: list[int], what: str = "red dog") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    members: dict[str, bytes] = {}
    for number in numbers:
        members[f"{number:04}.jpg"] = jpeg(number)
        members[f"{number:04}.txt"] = f"a {what} {number}".encode()
    write(path, list(members.items()))
    return path


def parquet(path: Path, numbers: list[int], what: str = "red dog") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [jpeg(n) for n in numbers], "caption": [f"a {what} {n}" for n in numbers]}
    pq.write_table(pa.table(rows), path)
    return path


def coco(path: Path, numbers: list[int], what: str = "red dog") -> Path:
    table(path.with_suffix(".tsv"), numbers).unlink()
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in numbers]
    captions = [{"id": number, "image_id": number, "caption": f"a {what} {number}"} for number in numbers]
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return path


MAKERS: dict[str, Callable[..., Path]] = {".tsv": table, ".tar": tar, ".parquet": parquet, ".json": coco}


def extract(out: Path | str, *files: Path | str, replace: bool = False, **reading: Any) -> Summary:
    """The command, in this process."""
    shards = plan([str(file) for file in files], **reading)
    store = Store.create(str(out), SETTINGS)
    jobs = [Job(shard) for shard in shards]
    with closing(store):
        return extract_shards(store, jobs, CONFIG, RunConfig(workers=0, retries=0), replace=replace)


def rows(out: Path | str) -> Counter[Row]:
    store = Store.open(str(out))
    tables = (store.table("samples", shard) for shard in store.committed())
    return Counter((row["key"], row["caption"]) for table in tables for row in table.to_pylist())


def fresh(*files: Path | str, **reading: Any) -> Counter[Row]:
    """What the files hold, had the store never been there."""
    shards = plan([str(file) for file in files], **reading)
    return Counter((i.key, row[0]) for shard in shards for i in shard.read() for row in i.rows())


def records(out: Path | str) -> dict[str, Any]:
    return Store.open(str(out)).records()


def refused(out: Path, words: str, *files: Path | str, **options: Any) -> None:
    """The command is refused in one line, and the store is as it was."""
    before = (records(out), rows(out))
    with pytest.raises(UserError, match=words) as caught:
        extract(out, *files, **options)
    assert "\n" not in str(caught.value)
    assert (records(out), rows(out)) == before


every_kind = pytest.mark.parametrize("kind", list(MAKERS))


class TestTheSame:
    @every_kind
    def test_is_skipped_touched_or_copied_over_itself(self, kind: str, tmp_path: Path) -> None:
        file, out = MAKERS[kind](tmp_path / f"t{kind}", [1, 2, 3]), tmp_path / "store"
        extract(out, file, rows_per_shard=2)
        before = records(out)
        for touch in (lambda: None, lambda: os.utime(file, (1, 1)), lambda: MAKERS[kind](file, [1, 2, 3])):
            touch()
            done = extract(out, file, rows_per_shard=2)
            assert (done.committed, done.skipped) == (0, len(before))
            done = extract(out, file, rows_per_shard=2, replace=True)
            assert (done.committed, done.skipped) == (0, len(before))
        assert records(out) == before

    def test_loads_no_model_when_nothing_is_to_be_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, out = tar(tmp_path / "a.tar", [1]), tmp_path / "store"
        extract(out, file)
        monkeypatch.setattr(runs, "Extractor", lambda *given: pytest.fail("a model was loaded"))
        assert extract(out, file).skipped == 1

    def test_on_an_object_store(self) -> None:
        fs = fsspec.filesystem("memory")
        with tempfile.TemporaryDirectory() as folder:
            data = tar(Path(folder) / "a.tar", [1, 2]).read_bytes()
            longer = tar(Path(folder) / "b.tar", [1, 2, 3]).read_bytes()
            other = tar(Path(folder) / "b.tar", [1, 2], "cat").read_bytes()
        url, out = "memory://identity/a.tar", "memory://identity/store"
        for held in (data, data, longer, longer):
            fs.pipe(url, held)
            extract(out, url)
            assert rows(out) == fresh(url)
        fs.pipe(url, other)
        with pytest.raises(UserError, match="was changed"):
            extract(out, url)
        extract(out, url, replace=True)
        assert rows(out) == fresh(url)
        fs.rm("/identity", recursive=True)


class TestGrown:
    @every_kind
    @pytest.mark.parametrize("per_shard", [2, 4])
    def test_is_extended_by_what_is_new(self, kind: str, per_shard: int, tmp_path: Path) -> None:
        file, out = tmp_path / f"t{kind}", tmp_path / "store"
        for end in (3, 6, 7, 12):
            MAKERS[kind](file, list(range(1, end)))
            extract(out, file, rows_per_shard=per_shard)
            assert rows(out) == fresh(file)
        anew = tmp_path / "anew"
        extract(anew, file, rows_per_shard=per_shard)
        assert list(records(out)) == list(records(anew))

    def test_whole_shards_are_left_alone(self, tmp_path: Path) -> None:
        file, out = table(tmp_path / "t.tsv", [1, 2, 3, 4, 5, 6]), tmp_path / "store"
        extract(out, file, rows_per_shard=4)
        first = records(out)["t-00000"]
        table(file, list(range(1, 10)))
        done = extract(out, file, rows_per_shard=4)
        assert (done.committed, done.skipped) == (2, 1)
        assert records(out)["t-00000"] == first
        assert rows(out) == fresh(file)

    def test_behind_a_broken_line(self, tmp_path: Path) -> None:
        file, out = table(tmp_path / "t.tsv", [1, 2, 3], end="4.jpg\n"), tmp_path / "store"
        extract(out, file, rows_per_shard=2)
        table(file, [1, 2, 3], end="4.jpg\n5.jpg\ta red dog 5\ta cat\n")
        extract(out, file, rows_per_shard=2)
        assert rows(out) == fresh(file)

    def test_a_tar_that_was_cut(self, tmp_path: Path) -> None:
        file, out = tar(tmp_path / "a.tar", [1, 2, 3]), tmp_path / "store"
        whole = file.read_bytes()
        file.write_bytes(whole[: whole.index(b"a red dog 2") + 512])
        extract(out, file)
        file.write_bytes(whole)
        extract(out, file)
        assert rows(out) == fresh(file)
        assert sum(rows(out).values()) == 3

    def test_an_old_image_with_another_caption_is_a_change(self, tmp_path: Path) -> None:
        file, out = table(tmp_path / "t.tsv", [1, 2, 3]), tmp_path / "store"
        extract(out, file, rows_per_shard=2)
        table(file, [1, 2, 3], end="1.jpg\tanother\tcat\n")
        refused(out, "was changed since shard t-00000", file, rows_per_shard=2)
        extract(out, file, rows_per_shard=2, replace=True)
        assert rows(out) == fresh(file)


class TestChanged:
    @every_kind
    def test_is_refused_and_replaced(self, kind: str, tmp_path: Path) -> None:
        file, out = MAKERS[kind](tmp_path / f"t{kind}", [1, 2, 3, 4, 5]), tmp_path / "store"
        extract(out, file, rows_per_shard=2)
        for numbers in ([6, 2, 3, 4, 5], [1, 2], [3, 4, 5, 6, 7, 8, 9]):
            MAKERS[kind](file, numbers)
            refused(out, "was changed since shard .*--replace", file, rows_per_shard=2)
            extract(out, file, rows_per_shard=2, replace=True)
            assert rows(out) == fresh(file)
            assert not Store.open(str(out)).staged()

    def test_with_the_time_and_size_of_the_old_one(self, tmp_path: Path) -> None:
        file, out = tar(tmp_path / "a.tar", [1, 2]), tmp_path / "store"
        extract(out, file)
        was = file.stat()
        tar(file, [1, 2], "big cat")
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert file.stat().st_size == was.st_size
        refused(out, "was changed", file)

    def test_other_pixels_alone(self, tmp_path: Path) -> None:
        file, out = tmp_path / "a.tar", tmp_path / "store"
        for number in (1, 2):
            write(file, list({"x.jpg": jpeg(number), "x.txt": b"a dog"}.items()))
            if number == 1:
                extract(out, file)
        refused(out, "was changed", file)

    def test_retry_does_not_mix_two_files(self, tmp_path: Path) -> None:
        file, out = tmp_path / "a.tar", tmp_path / "store"
        write(
            file, list({"x.jpg": b"broken", "x.txt": b"a dog", "y.jpg": jpeg(1), "y.txt": b"a cat"}.items())
        )
        extract(out, file)
        write(file, list({"x.jpg": jpeg(2), "x.txt": b"a dog", "y.jpg": jpeg(1), "y.txt": b"a cat"}.items()))
        store = Store.create(str(out), SETTINGS)
        with pytest.raises(UserError, match="was changed since shard a"):  # y lies elsewhere now
            extract_shards(store, failed_samples(store), CONFIG, RunConfig(workers=0))

    def test_retry_mends_several_shards_of_a_table(self, tmp_path: Path) -> None:
        file, out = table(tmp_path / "t.tsv", [1, 2, 3, 4]), tmp_path / "store"
        for number in (1, 4):
            (tmp_path / f"{number}.jpg").write_bytes(b"broken")
        extract(out, file, rows_per_shard=2)
        for number in (1, 4):
            (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
        store = Store.create(str(out), SETTINGS)
        with closing(store):
            done = extract_shards(store, failed_samples(store), CONFIG, RunConfig(workers=0))
        assert done.samples == {"ok": 4}
        assert status(store)["samples"] == {"ok": 4}
        assert rows(out) == fresh(file)
        assert extract(out, file, rows_per_shard=2).skipped == 2


class TestReadOtherwise:
    @pytest.mark.parametrize(
        ("option", "reading"),
        [
            ("--caption-field", {"caption_field": "alt"}),
            ("--caption-field", {"caption_field": ["title", "alt"]}),
            ("--dataset", {"dataset": "other"}),
            ("--key-field", {"key_field": "title"}),
            ("--image-field", {"image_field": "alt"}),
            ("--image-root", {"image_root": "/elsewhere"}),
            ("--rows-per-shard", {"rows_per_shard": 2}),
            ("--rows-per-shard", {"rows_per_shard": 5}),
            ("--rows-per-shard", {"rows_per_shard": 50}),
        ],
    )
    def test_is_refused_by_name_and_replaced(
        self, option: str, reading: dict[str, Any], tmp_path: Path
    ) -> None:
        file, out = table(tmp_path / "t.tsv", [1, 2, 3, 4, 5, 6, 7]), tmp_path / "store"
        extract(out, file, rows_per_shard=3)
        reading = {"rows_per_shard": 3} | reading
        refused(out, f"{option}.*--replace.*another --out", file, **reading)
        extract(out, file, replace=True, **reading)
        assert rows(out) == fresh(file, **reading)
        assert extract(out, file, **reading).committed == 0

    def test_as_status_tells(self, tmp_path: Path) -> None:
        file, out = table(tmp_path / "t.tsv", [1, 2, 3]), tmp_path / "store"
        extract(out, file, tar(tmp_path / "c" / "a.tar", [4]), caption_field="alt", rows_per_shard=2)
        tars, tables = status(Store.open(str(out)))["inputs"]
        assert tars.items() >= {"dataset": "c", "captions": ["alt"], "rows_per_shard": "default"}.items()
        assert (tars["files"], tars["shards"], tars["samples"]) == (1, 1, 1)
        assert tables.items() >= {"format": "table", "captions": ["alt"], "rows_per_shard": 2}.items()
        assert (tables["files"], tables["shards"], tables["samples"]) == (1, 2, 3)
        assert tables["image"] == tables["key"] == tables["image_root"] == "default"


class TestElsewhere:
    @every_kind
    @pytest.mark.parametrize("more", [0, 3])
    def test_the_same_rows_do_not_enter_twice(self, kind: str, more: int, tmp_path: Path) -> None:
        file, out = MAKERS[kind](tmp_path / "x" / f"t{kind}", [1, 2, 3]), tmp_path / "store"
        extract(out, file, rows_per_shard=2)
        MAKERS[kind](tmp_path / "y" / f"t{kind}", list(range(1, 4 + more)))
        MAKERS[kind](tmp_path / "x" / f"renamed{kind}", list(range(1, 4 + more)))
        (tmp_path / "x" / f"link{kind}").symlink_to(file)
        for other in (f"y/t{kind}", f"x/renamed{kind}", f"x/link{kind}"):
            for reading in ({}, {"rows_per_shard": 2}, {"rows_per_shard": 1, "dataset": "d"}):
                refused(out, "same sample.*leave it out or use another --out", tmp_path / other, **reading)
            refused(out, "same sample", file, tmp_path / other, rows_per_shard=2)
        extract(out, tmp_path / "y" / f"t{kind}", replace=True)
        assert rows(out) == fresh(tmp_path / "y" / f"t{kind}")

    @every_kind
    def test_twice_in_one_command(self, kind: str, tmp_path: Path) -> None:
        files = [MAKERS[kind](tmp_path / place / f"t{kind}", [1, 2]) for place in "xy"]
        with pytest.raises(UserError, match="begins with the same sample"):
            extract(tmp_path / "store", *files)
        assert records(tmp_path / "store") == {}

    def test_a_table_of_some_of_the_rows(self, tmp_path: Path) -> None:
        out = tmp_path / "store"
        extract(out, table(tmp_path / "t.tsv", [1, 2, 3, 4]))
        for numbers in ([3, 4], [9, 2], [4, 3, 2, 1]):
            refused(out, "has a row that .*t.tsv has already", table(tmp_path / "u.csv", numbers))
        with pytest.raises(UserError, match="has a row that"):
            extract(tmp_path / "b", tmp_path / "t.tsv", table(tmp_path / "u.csv", [5, 4]))
        extract(out, table(tmp_path / "u.csv", [5, 6]))
        extract(
            out, table(tmp_path / "v.tsv", [1, 2]), caption_field="alt"
        )  # other captions of the same images
        assert sum(rows(out).values()) == 8

    def test_another_corpus_with_the_same_names(self, tmp_path: Path) -> None:
        out = tmp_path / "store"
        for place, shift in (("x", 0), ("y", 10), ("z", 20)):
            lines = "".join(f"{n}.jpg\ta dog\n" for n in (1, 2))
            (tmp_path / place).mkdir()
            for n in (1, 2):
                (tmp_path / place / f"{n}.jpg").write_bytes(jpeg(n + shift))
            (tmp_path / place / "t.tsv").write_text("filepath\ttitle\n" + lines)
            extract(out, tmp_path / place / "t.tsv")
        assert list(records(out)) == ["t-00000", "y-t-00000", "z-t-00000"]
        assert sum(rows(out).values()) == 6


class TestASecondCorpus:
    def test_renames_and_reads_nothing_of_the_first(self, tmp_path: Path) -> None:
        first, second = tar(tmp_path / "ra/0.tar", [1, 2]), tar(tmp_path / "rb/0.tar", [3, 4])
        third, out = tar(tmp_path / "x/rb/0.tar", [5]), tmp_path / "store"
        extract(out, first)
        before = records(out)["0"]
        done = extract(out, first, second)
        assert (done.skipped, done.committed) == (1, 1)
        assert records(out)["0"] == before
        assert rows(out) == fresh(first, second)
        extract(out, second)
        extract(out, third)
        extract(out, second, first)
        assert list(records(out)) == ["0", "rb-0", "x-rb-0"]
        assert rows(out) == fresh(first, second) + fresh(third)

    def test_is_found_again_however_the_first_was_named(self, tmp_path: Path) -> None:
        files, out = [tar(tmp_path / f"{place}/0.tar", [ord(place)]) for place in "ab"], tmp_path / "store"
        extract(out, *files)
        for file in files:
            assert extract(out, file).skipped == 1
        assert list(records(out)) == ["a-0", "b-0"]

    def test_of_a_tar_named_as_a_part_of_a_table(self, tmp_path: Path) -> None:
        out = tmp_path / "store"
        extract(out, table(tmp_path / "t.tsv", [1, 2]), rows_per_shard=2)
        extract(out, tar(tmp_path / "d/t-00000.tar", [3]))
        assert list(records(out)) == ["d-t-00000", "t-00000"]


def test_records_of_a_former_version_go_on(tmp_path: Path) -> None:
    """They have size, mtime and etag, and nothing of the content."""
    files = [MAKERS[kind](tmp_path / kind[1:] / f"{kind[1:]}{kind}", [1, 2, 3]) for kind in MAKERS]
    out = tmp_path / "store"
    extract(out, *files, rows_per_shard=2)
    for path in (out / "shards").glob("[!_]*.json"):
        record = json.loads(path.read_text())
        del (
            record["input"]["content"],
            record["input"]["fingerprint"]["ctime"],
            record["input"]["rows_per_shard"],
        )
        path.write_text(json.dumps(record))
    before = records(out)
    assert extract(out, *files, rows_per_shard=2).committed == 0
    for file in files:
        os.utime(file, (1, 1))
    assert extract(out, *files, rows_per_shard=2).committed == 0
    assert records(out) == before
    refused(out, "--rows-per-shard 2, not 3", files[0], rows_per_shard=3)
    for file in files:
        MAKERS[file.suffix](file, [1, 2, 3, 4])
        extract(out, file, rows_per_shard=2)
        MAKERS[file.suffix](file, [1, 3, 2, 4, 5])
        refused(out, "was changed", file, rows_per_shard=2)
        extract(out, file, rows_per_shard=2, replace=True)
    assert rows(out) == fresh(*files)


class Killed(BaseException):
    """The process ends here."""


def killed(step: int, out: Path, *files: Path, **options: Any) -> bool:
    """Whether the command dies at the `step`-th change that it makes in the store's folder."""
    left = step

    def dying(method: Callable[..., Any]) -> Callable[..., Any]:
        def one(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return method(*arguments)

        return one

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "remove", "_move"):
            patch.setattr(Store, name, dying(getattr(Store, name)))
        try:
            extract(out, *files, **options)
        except Killed:
            return True
        return False


@every_kind
def test_a_kill_at_any_moment_of_a_replacement_loses_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    file, out = MAKERS[kind](tmp_path / f"t{kind}", [1, 2, 3, 4]), tmp_path / "store"
    extract(out, file, rows_per_shard=2)
    old = rows(out)
    MAKERS[kind](file, [5, 3, 4])
    new, copy, step = fresh(file), tmp_path / "copy", 0
    seen = set()
    while True:
        shutil.copytree(out, copy)
        if not killed(step, copy, file, rows_per_shard=2, replace=True):
            break
        held = rows(copy)  # for whoever opens it next
        assert held in (old, new)
        seen.add(held == new)
        extract(copy, file, rows_per_shard=2, replace=True)
        assert rows(copy) == new
        shutil.rmtree(copy)
        step += 1
    assert seen == {True, False}


def by_file(out: Path) -> dict[str, Counter[Row]]:
    """The rows of each file that shards were made of."""
    sql = "SELECT input->>'url', key, caption FROM samples JOIN shards USING (shard)"
    found: dict[str, Counter[Row]] = defaultdict(Counter)
    for url, key, caption in connect(Store.open(str(out))).execute(sql).fetchall():
        found[url][str(key), caption] += 1
    return found


@dataclass
class Corpus:
    """One file and how it is read."""

    path: Path
    numbers: list[int] = field(default_factory=lambda: [1, 2, 3])
    reading: dict[str, Any] = field(default_factory=lambda: {"rows_per_shard": 2})
    alt: str = "cat"

    def write(self) -> None:
        more = (self.alt,) if self.path.suffix in (".tsv", ".csv") else (f"{self.alt} and dog",)
        MAKERS[self.path.suffix](self.path, self.numbers, *more)

    def change(self, step: str, number: int) -> None:
        if step == "append":
            self.numbers += [max(self.numbers) + 1 + n for n in range(number)]
        elif step == "edit":
            self.alt += "s"
            self.numbers[number % len(self.numbers)] += 50
        elif step == "shorten":
            self.numbers = self.numbers[: max(1, len(self.numbers) - number)]
        elif step == "rename":
            self.path.unlink()
            self.path = self.path.with_stem(self.path.stem + "x")
        elif step == "rows":
            self.reading = self.reading | {"rows_per_shard": number}
        elif step == "field":
            fields = {".tsv": "alt", ".tar": "txt", ".parquet": "caption", ".json": "caption"}
            self.reading = self.reading | {"caption_field": fields[self.path.suffix]}
        self.write()


STEPS = ("append", "edit", "shorten", "rename", "rows", "field", "again")


@examples(6, 100, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(list(MAKERS)),
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(1, 4), st.booleans(), st.none() | st.integers(0, 20)),
        min_size=1,
        max_size=5,
    ),
)
def test_after_anything_the_rows_are_those_of_a_fresh_extraction_or_the_command_was_refused(
    kind: str, steps: list[tuple[str, int, bool, int | None]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, corpus = Path(folder) / "store", Corpus(Path(folder) / f"t{kind}")
        corpus.write()
        extract(out, corpus.path, **corpus.reading)
        for step, number, replace, kill in steps:
            before = rows(out)
            corpus.change(step, number)
            after = fresh(corpus.path, **corpus.reading)
            # Others stay: those that hold nothing of a file that comes by another name.
            held = by_file(out)
            mine = [str(corpus.path)] if str(corpus.path) in held else [f for f in held if held[f] & after]
            whole = sum((own for file, own in held.items() if file not in mine), after)
            if kill is not None:
                try:
                    dead = killed(kill, out, corpus.path, replace=replace, **corpus.reading)
                except UserError:
                    assert not replace
                else:  # a file that only grew may be there in part: its new shards come one by one
                    assert rows(out) == whole or (
                        dead and (rows(out) == before or before <= rows(out) <= whole)
                    )
            before = rows(out)
            try:
                extract(out, corpus.path, replace=replace, **corpus.reading)
            except UserError:
                assert not replace
                assert rows(out) == before
            else:
                assert rows(out) == whole
