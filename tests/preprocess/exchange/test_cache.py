"""A cache of stores of every origin, and what is tried again in them."""

import csv
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from macco.pipeline.cache import ImageCache
from macco.pipeline.errors import UserError
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.exchange.cache import write_cache
from macco.preprocess.exchange.compact import compact
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.tsv import COLUMNS
from macco.preprocess.extraction.retry import failed_samples, failed_shards
from macco.preprocess.extraction.run import extract_shards
from macco.preprocess.extraction.shard import Extractor, Job
from macco.preprocess.sources import Shard, plan
from tests.support import DATA
from tests.support.packed import pack

COLOURS = {"a": (250, 0, 0), "b": (0, 250, 0), "c": (0, 0, 250)}
CONFIG = ExtractConfig(device="cpu")


def jpeg(colour: tuple[int, int, int]) -> bytes:
    out = BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "JPEG", quality=95)
    return out.getvalue()


def delimited(folder: Path, name: str, delimiter: str) -> str:
    with open(folder / name, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([("filepath", "title"), *((f"{key}.jpg", f"a red {key}") for key in COLOURS)])
    return str(folder / name)


def parquet(folder: Path, image: list[Any]) -> str:
    pq.write_table(pa.table({"image": image, "caption": ["a dog"] * 3}), folder / "t.parquet")
    return str(folder / "t.parquet")


def coco(folder: Path) -> str:
    images = [{"id": number, "file_name": f"{key}.jpg"} for number, key in enumerate(COLOURS)]
    notes = [{"id": 9 + number, "image_id": number, "caption": "a dog"} for number in (2, 0, 1, 0)]
    (folder / "t.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return str(folder / "t.json")


def tar(folder: Path) -> str:
    files = [
        (f"{key}.{kind}", data)
        for key, colour in COLOURS.items()
        for kind, data in (("jpg", jpeg(colour)), ("txt", b"a dog"))
    ]
    (folder / "t.tar").write_bytes(pack(files))
    return str(folder / "t.tar")


ORIGINS: dict[str, Callable[[Path], str]] = {
    "TSV": lambda folder: delimited(folder, "t.tsv", "\t"),
    "CSV": lambda folder: delimited(folder, "t.csv", ","),
    "Parquet of bytes": lambda folder: parquet(folder, [jpeg(colour) for colour in COLOURS.values()]),
    "Parquet of Hugging Face": lambda folder: parquet(
        folder, [{"bytes": jpeg(c), "path": "x"} for c in COLOURS.values()]
    ),
    "Parquet of paths": lambda folder: parquet(folder, [f"{key}.jpg" for key in COLOURS]),
    "COCO": coco,
    "tar": tar,
}


def imported(folder: Path) -> Store:
    lines = ["\t".join(COLUMNS[:7]), *(f"a red {key}\t{key}.jpg" + "\t[]" * 5 for key in COLOURS)]
    (folder / "macco.tsv").write_text("\n".join(lines) + "\n")
    assert import_tsv(folder / "macco.tsv", str(folder / "store"), str(folder)) == {"ok": 3}
    return Store.open(str(folder / "store"))


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(CONFIG)


@pytest.fixture(params=[*ORIGINS, "import"])
def store(request: pytest.FixtureRequest, tmp_path: Path, extractor: Extractor) -> Store:
    for key, colour in COLOURS.items():
        (tmp_path / f"{key}.jpg").write_bytes(jpeg(colour))
    if request.param == "import":
        return imported(tmp_path)
    made = Store.create(str(tmp_path / "store"), CONFIG.settings())
    for shard in plan([ORIGINS[request.param](tmp_path)], rows_per_shard=2):
        extractor.commit(made, Job(shard))
    return made


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_of_any_origin_has_a_cache_that_training_joins(
    store: Store, tmp_path: Path, workers: int
) -> None:
    copy = compact(store, str(tmp_path / "compact"))
    for one in (store, copy):
        out = str(tmp_path / f"cache-of-{Path(one.url).name}")
        assert write_cache(one.url, out, short_side=20, workers=workers, log=lambda line: None) == 3
        cache = ImageCache.open(out)
        assert cache.shards() == one.committed()
        found = dicts(
            connect(one).execute(
                "SELECT DISTINCT s.key, c.file, c.at, c.bytes "
                f"FROM samples s JOIN {cache.sql(sorted(cache.shards()))} c "
                "ON c.shard = s.shard AND c.key = s.key AND c.source = s.source "
                'AND c."offset" IS NOT DISTINCT FROM s."offset" ORDER BY s.key'
            )
        )
        assert len(found) == 3
        for row, colour in zip(found, COLOURS.values(), strict=True):
            data = Path(row["file"]).read_bytes()[row["at"] : row["at"] + row["bytes"]]
            with Image.open(BytesIO(data)) as image:
                assert image.size == (27, 20)
                assert max(abs(a - b) for a, b in zip(image.getpixel((9, 9)), colour, strict=True)) < 6


def test_images_that_have_gone_are_left_out_and_counted(tmp_path: Path, extractor: Extractor) -> None:
    for origin in (ORIGINS["TSV"], tar, imported):
        folder = tmp_path / origin.__name__
        folder.mkdir()
        for key, colour in COLOURS.items():
            (folder / f"{key}.jpg").write_bytes(jpeg(colour))
        made = origin(folder)
        if not isinstance(made, Store):
            url, made = made, Store.create(str(folder / "store"), CONFIG.settings())
            extractor.commit(made, Job(*plan([url])))
        (folder / "b.jpg").unlink()
        (folder / "t.tar").unlink(missing_ok=True)
        lines: list[str] = []
        left = 0 if origin is tar else 2
        assert write_cache(made.url, str(folder / "cache"), log=lines.append) == left
        assert lines[-1].endswith(f"{left} images in 1 new shards, {3 - left} unreadable")


def test_what_failed_in_a_table_is_tried_again(tmp_path: Path, extractor: Extractor) -> None:
    for key, colour in COLOURS.items():
        (tmp_path / f"{key}.jpg").write_bytes(jpeg(colour) if key != "b" else b"not yet")
    store = Store.create(str(tmp_path / "store"), CONFIG.settings())
    first, second = plan([ORIGINS["TSV"](tmp_path)], rows_per_shard=2)
    extractor.commit(store, Job(first))
    store.fail(second.name, {"shard": second.name, "input": second.record(), "tries": 1, "error": "x"})
    assert failed_shards(store) == [Job(second)]
    assert failed_samples(store) == [Job(first, frozenset([1]))]
    (tmp_path / "b.jpg").write_bytes(jpeg(COLOURS["b"]))
    summary = extract_shards(
        store, failed_shards(store) + failed_samples(store), CONFIG, RunConfig(workers=0)
    )
    assert (summary.committed, summary.failed, summary.samples) == (2, {}, {OK: 3})
    assert failed_samples(store) == failed_shards(store) == []


def test_an_imported_store_is_imported_again_not_retried(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"broken")
    (tmp_path / "macco.tsv").write_text("\t".join(COLUMNS[:7]) + "\na dog\ta.jpg" + "\t[]" * 5 + "\n")
    import_tsv(tmp_path / "macco.tsv", str(tmp_path / "store"), str(tmp_path))
    with pytest.raises(UserError, match="import it again"):
        failed_samples(Store.open(str(tmp_path / "store")))


NAMES = st.text(min_size=1, max_size=8)


@given(
    st.builds(
        Shard,
        NAMES, NAMES, NAMES, st.sampled_from(["table", "coco", "parquet", "webdataset"]),
        captions=st.lists(NAMES, max_size=3).map(tuple),
        image=st.none() | NAMES, key=st.none() | NAMES, image_root=st.none() | NAMES,
        start=st.integers(0, 99), stop=st.none() | st.integers(0, 99),
    )
)  # fmt: skip
def test_a_shard_survives_json(shard: Shard) -> None:
    stored = json.loads(
        json.dumps({"shard": shard.name, "input": shard.record() | {"fingerprint": {"size": 1}}})
    )
    again = Shard.of(stored)
    assert again == shard
    assert hash(again) == hash(shard)


def test_a_former_stores_records_are_read() -> None:
    store = Store.open(str(DATA.parent / "fixtures" / "v0.1" / "store"))
    shards = [Shard.of(store.shard(name)) for name in sorted(store.committed())]
    assert [shard and (shard.dataset, shard.format, shard.captions) for shard in shards] == [
        (store.shard(name)["dataset"], "webdataset", ()) for name in sorted(store.committed())
    ]
