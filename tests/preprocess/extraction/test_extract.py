"""One shard to three tables, on real tars with the embedded models."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import BOXES, CONCEPTS, SAMPLES
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.retry import failed_samples
from macco.preprocess.extraction.run import Job, RunConfig, extract_shards
from macco.preprocess.extraction.shard import CHUNK, Extractor
from macco.preprocess.extraction.tables import ShardTables
from macco.preprocess.look.score import score
from macco.preprocess.sources import plan


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(ExtractConfig(device="cpu"))


def picture(width: int = 64, height: int = 48, kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(data, kind)
    return data.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def run(extractor: Extractor, pattern: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (shard,) = plan([pattern])
    return extractor.extract(shard)


def test_tables_have_the_schemas_and_every_span_is_its_text(store: Store) -> None:
    for shard in store.committed():
        samples, concepts, boxes = (store.table(name, shard) for name in ("samples", "concepts", "boxes"))
        assert (samples.schema, concepts.schema, boxes.schema) == (SAMPLES, CONCEPTS, BOXES)
        captions = dict(zip(samples["sample_id"].to_pylist(), samples["caption"].to_pylist(), strict=True))
        for row in concepts.to_pylist():
            caption = captions[row["sample_id"]]
            assert caption[row["start"] : row["end"]] == row["text"]
            assert caption[row["head_start"] : row["head_end"]] == row["head"]
        assert samples["row"].to_pylist() == list(range(samples.num_rows))


def test_the_demo_corpus_is_extracted_as_it_was_drawn(store: Store, corpus: Path) -> None:
    result = score(store, str(corpus / "truth"))
    # A floor for 24 images; the README's figures come from 2,000.
    assert result["spans"].f1 >= 0.95
    assert result["boxes"].recall >= 0.9
    assert result["boxes"].precision >= 0.9


def test_a_truth_that_is_not_there_is_said_without_sql(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no truth at .*/concepts .*DIR/truth") as error:
        score(store, str(tmp_path))
    assert "SELECT" not in str(error.value)


def test_references_lead_to_objects_and_boxes_lie_in_the_image(store: Store) -> None:
    connection = connect(store)
    dangling = """
        SELECT count(*) FROM concepts c LEFT JOIN concepts o
          ON o.concept_id = coalesce(c.owner_id, c.subject_id, c.object_id) AND o.kind = 'object'
        WHERE c.kind <> 'object' AND coalesce(c.owner_id, c.subject_id, c.object_id) IS NOT NULL AND o.kind IS NULL"""
    assert connection.execute(dangling).fetchall() == [(0,)]
    outside = "SELECT count(*) FROM boxes WHERE x0 < 0 OR y0 < 0 OR x1 > 1 OR y1 > 1 OR x0 >= x1 OR y0 >= y1"
    assert connection.execute(outside).fetchall() == [(0,)]
    orphans = "SELECT count(*) FROM boxes ANTI JOIN concepts USING (concept_id)"
    assert connection.execute(orphans).fetchall() == [(0,)]


def test_offsets_lead_back_to_the_image(store: Store) -> None:
    row = dicts(connect(store).execute("SELECT * FROM samples ORDER BY sample_id LIMIT 1"))[0]
    with open(row["source"], "rb") as tar:
        tar.seek(row["offset"])
        image = Image.open(io.BytesIO(tar.read(row["size"])))
    assert image.size == (row["width"], row["height"])


def test_every_broken_thing_is_a_counted_row(extractor: Extractor, tmp_path: Path) -> None:
    good = picture()
    huge = picture(30_001, 4, "PNG")
    members = {
        "good.jpg": good, "good.txt": b"a red dog on a sofa",
        "cut.jpg": good[: len(good) // 2], "cut.txt": b"a dog",
        "text.jpg": b"this is no image", "text.txt": b"a dog",
        "huge.png": huge, "huge.txt": b"a dog",
        "dot.png": picture(1, 1, "PNG"), "dot.txt": b"a dog",
        "nocaption.jpg": good,
        "noimage.txt": b"a dog",
        "blank.jpg": good, "blank.txt": b"  \n",
        "latin1.jpg": good, "latin1.txt": "ein h\xfcbscher Hund".encode("latin-1"),
        "chinese.jpg": good, "chinese.txt": "一只狗坐在沙发上看电视".encode(),
        "long.jpg": good, "long.txt": b"dog " * 1000,
        "json.jpg": good, "json.json": b"{",
        "mixed.jpg": good, "mixed.json": json.dumps({"captions": ["a dog", "", None, 7, "a cat"]}).encode(),
        "../up.jpg": good, "../up.txt": b"a dog",
    }  # fmt: skip
    write_tar(tmp_path / "bad.tar", members)
    tables, record = run(extractor, str(tmp_path / "bad.tar"))
    found: dict[str, list[str]] = {}
    for row in tables["samples"].to_pylist():
        found.setdefault(row["key"].rsplit("/", 1)[-1], []).append(row["status"])
        assert (row["status"] == "ok") == (row["error"] is None)
    assert {key: statuses if len(statuses) > 1 else statuses[0] for key, statuses in found.items()} == {
        "good": "ok",
        "cut": "image_truncated",
        "text": "image_unsupported",
        "huge": "image_too_large",
        "dot": "image_too_small",
        "nocaption": "missing_caption",
        "noimage": "missing_image",
        "blank": "missing_caption",
        "latin1": "bad_encoding",
        "chinese": "not_english",
        "long": "caption_too_long",
        "json": "bad_json",
        "mixed": ["ok", "missing_caption", "missing_caption", "missing_caption", "ok"],
        "up": "unsafe_name",
    }
    assert set(tables["concepts"]["key"].to_pylist()) == {"good", "mixed"}
    assert record["seconds"]["total"] > 0


@pytest.mark.slow
def test_rows_in_are_rows_out_over_several_chunks(extractor: Extractor, tmp_path: Path) -> None:
    count = CHUNK + 3
    members: dict[str, bytes] = {}
    for number in range(count):
        members |= {f"{number:04}.jpg": picture() if number % 5 else b"no", f"{number:04}.txt": b"a red dog"}
    write_tar(tmp_path / "many.tar", members)
    tables, _ = run(extractor, str(tmp_path / "many.tar"))
    assert tables["samples"]["key"].to_pylist() == [f"{number:04}" for number in range(count)]
    assert tables["samples"]["status"].to_pylist().count("ok") == count - len(range(0, count, 5))


def test_a_picture_that_the_detector_cannot_bear_costs_its_own_rows_alone(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {}
    for name, width in (("a", 64), ("b", 77), ("c", 64)):
        members |= {f"{name}.jpg": picture(width), f"{name}.txt": b"a red dog"}
    write_tar(tmp_path / "x.tar", members)
    detect = extractor.detector.detect

    def fragile(images: Any, phrases: Any) -> Any:
        if any(image.width == 77 for image in images):
            raise RuntimeError("out of memory")
        return detect(images, phrases)

    monkeypatch.setattr(extractor.detector, "detect", fragile)
    tables, _ = run(extractor, str(tmp_path / "x.tar"))
    assert tables["samples"]["status"].to_pylist() == ["ok", "grounding_failed", "ok"]
    assert tables["samples"]["error"].to_pylist()[1] == "RuntimeError: out of memory"
    assert set(tables["concepts"]["key"].to_pylist()) == {"a", "c"}

    monkeypatch.setattr(extractor.detector, "detect", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # nothing works: the shard fails, and is tried again
        run(extractor, str(tmp_path / "x.tar"))


def test_a_shard_without_samples_is_committed(extractor: Extractor, tmp_path: Path) -> None:
    write_tar(tmp_path / "empty.tar", {})
    tables, _ = run(extractor, str(tmp_path / "empty.tar"))
    assert [tables[name].num_rows for name in ("samples", "concepts", "boxes")] == [0, 0, 0]
    assert tables["boxes"].schema == BOXES  # typed, though nothing was seen


@pytest.mark.slow
def test_retry_does_only_the_failed_rows_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    members = {
        "a.jpg": picture(),
        "a.txt": b"a red dog",
        "b.jpg": b"broken!" * 90,
        "b.txt": b"a blue cat on a sofa",
    }
    members |= {"c.jpg": picture(), "c.txt": b"a small umbrella"}
    write_tar(path, members)
    config = ExtractConfig(device="cpu")
    store = Store.create(str(tmp_path / "store"), config.settings())
    extract_shards(store, [Job(shard) for shard in plan([str(path)])], config, RunConfig(workers=0))
    before = store.table("samples", "a").to_pylist()
    assert [row["status"] for row in before] == ["ok", "image_unsupported", "ok"]
    fixed = picture().ljust(len(members["b.jpg"]), b"\0")
    write_tar(path, members | {"b.jpg": fixed})

    seen: list[str] = []
    add = ShardTables.add

    def noting(self: ShardTables, item: Any, *rest: Any) -> None:
        seen.append(item.key)
        add(self, item, *rest)

    monkeypatch.setattr(ShardTables, "add", noting)
    jobs = failed_samples(store)
    summary = extract_shards(store, jobs, config, RunConfig(workers=0))
    assert seen == ["b"]
    assert summary.samples == {"ok": 3}
    after = store.table("samples", "a").to_pylist()
    assert [row["key"] for row in after] == ["a", "b", "c"]
    assert [after[0], after[2]] == [before[0], before[2]]
    assert [row["key"] for row in store.table("concepts", "a").to_pylist()] == sorted(
        row["key"] for row in store.table("concepts", "a").to_pylist()
    )
    assert store.failed() == set()
    assert failed_samples(store) == []


def test_no_detector_is_asked_for_what_a_caption_denies(
    extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"a.jpg": picture(), "a.txt": b"no dogs on a red sofa, nobody around, a man without a hat"}
    write_tar(tmp_path / "x.tar", members)
    asked: list[str] = []
    detect = extractor.detector.detect

    def noting(images: Any, phrases: Any) -> Any:
        asked.extend(phrase for each in phrases for phrase in each)
        return detect(images, phrases)

    monkeypatch.setattr(extractor.detector, "detect", noting)
    tables, _ = run(extractor, str(tmp_path / "x.tar"))
    assert sorted(asked) == ["man", "red sofa"]
    concepts = tables["concepts"].to_pylist()
    assert {row["lemma"] for row in concepts if row["denied"]} == {"dog", "hat", "without"}
    boxed = set(tables["boxes"]["concept_id"].to_pylist())
    assert not boxed & {row["concept_id"] for row in concepts if row["denied"]}
