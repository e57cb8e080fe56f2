"""How soon the first batch comes, what a worker weighs, and how many samples a core makes.

    python benchmarks/loader.py [--captions 566000] [--images 1000] [--batches 12]

Draws some 640 x 480 images into one tar, and makes a store whose shards, one caption an image, all point into it.
A table of the public code's kind (110,000 rows, 8 columns of Python literals) is read for comparison, in a process
of its own. Resident memory (rss) counts pages shared with the main process; uss does not.
"""

import argparse
import ast
import csv
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import psutil
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from macco.pipeline.store import Store
from macco.preprocess.exchange.cache import write_cache
from macco.train.data.loader import Loader
from macco.train.objectives.macco.batches import open_training_data
from tests.support.drawn import CAPTION, record, rows, tar

IDS = ("sample_id", "concept_id", "subject_id", "object_id", "owner_id")
MB = 2**20


def photo(random: np.random.Generator, width: int = 640, height: int = 480) -> bytes:
    """A JPEG of about the weight of COCO's (160 kB): noise at several scales."""
    pixels = np.zeros((height, width, 3))
    for scale, strength in ((8, 60), (32, 40), (128, 25), (480, 12)):
        noise = random.normal(0, strength, (scale * height // 480, scale * width // 480, 3))
        layer = [Image.fromarray(noise[..., c].astype(np.float32)).resize((width, height)) for c in range(3)]
        pixels += np.stack([np.asarray(one) for one in layer], -1)
    out = io.BytesIO()
    Image.fromarray((128 + pixels).clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def make_store(folder: Path, captions: int, images: int) -> str:
    """A store of `captions` rows over one shared tar."""
    random = np.random.default_rng(0)
    source = folder / "shared.tar"
    places = tar(source, [photo(random) for _ in range(images)])
    print(f"{images} images of {statistics.mean(size for _, size in places) / 1000:.0f} kB on average")
    store = Store.create(str(folder / "store"), {"made": "for the benchmark"})
    base = rows("BASE", source, places)
    for number in range(captions // images):
        name = f"{number:05}"
        store.commit(name, {table: _renamed(base[table], name) for table in base}, record(name, source))
    return store.url


def _renamed(table: pa.Table, shard: str) -> pa.Table:
    for name in IDS:
        if name in table.schema.names:
            place, field = table.schema.get_field_index(name), table.schema.field(name)
            table = table.set_column(place, field, pc.replace_substring(table[name], "BASE", shard))
    place = table.schema.get_field_index("shard")
    return table.set_column(place, table.schema.field(place), pa.repeat(pa.scalar(shard), table.num_rows))


def load(store: str, **changes: Any) -> Loader:
    """A loader with the paper's settings for B/32."""
    options: dict[str, Any] = {
        "image_size": 224,
        "patch_size": 32,
        "batch_size": 256,
        "log": lambda line: None,
    }
    return open_training_data(store, open_clip.get_tokenizer("ViT-B-32"), **(options | changes))


def first_batch(store: str, where: str, workers: int, batches: int) -> None:
    """Time from nothing to the first batch, and what the workers weigh after some more."""
    begin = time.perf_counter()
    loader = load(store, where=where, workers=workers, log=lambda line: print("   ", line))
    resolved = time.perf_counter() - begin
    stream = iter(loader)
    next(stream)
    first, used = time.perf_counter() - begin, time.process_time()
    for _ in range(batches):
        next(stream)
    weights = [child.memory_full_info() for child in psutil.Process().children()]
    rss, uss, pss = (max(getattr(weight, name) for weight in weights) / MB for name in ("rss", "uss", "pss"))
    print(
        f"where {where!r}: selected after {resolved:.1f} s, first batch after {first:.1f} s "
        f"({used:.1f} s of CPU in the main process, imports included)\n"
        f"heaviest of {workers} workers after {batches + 1} batches: {uss:.0f} MB of its own (uss), "
        f"{pss:.0f} MB with its share of common pages (pss), {rss:.0f} MB with all of them (rss)",
        flush=True,
    )
    loader.close()


def rate(store: str, what: str, batches: int, cache: str | None = None) -> None:
    """Samples of one core, without its first batch: by CPU time, which other work on the machine leaves as it is."""
    stream = iter(load(store, workers=0, cache=cache))
    next(stream)
    begin = time.process_time()
    for _ in range(batches):
        next(stream)
    print(
        f"{256 * batches / (time.process_time() - begin):.0f} samples/s of one core from {what}", flush=True
    )


def _forking(work: Callable[..., None], *arguments: Any) -> None:
    """A spawned process would spawn its own children too; a training's are forked."""
    multiprocessing.set_start_method("fork", force=True)
    work(*arguments)


def fresh(work: Callable[..., None], *arguments: Any) -> None:
    """Run in a new process, which has nothing of this one's in memory."""
    process = multiprocessing.get_context("spawn").Process(target=_forking, args=(work, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def write_table(path: Path, count: int) -> None:
    """A TSV as the public code reads it: caption, path, and lists as Python literals."""
    phrase = {"a red dog sitting on a small sofa": [[64.0, 48.0, 192.0, 192.0], [320.0, 240.0, 576.0, 432.0]]}
    phrase |= {"red dog": [[64.0, 48.0, 192.0, 192.0]], "small sofa": [[320.0, 240.0, 576.0, 432.0]]}
    words = [
        ["dog", "sofa"],
        ["sitting on"],
        ["red", "small"],
        ["dog sitting on sofa"],
        ["red dog", "small sofa"],
    ]
    literals = [repr(value) for value in (*words, [phrase], [CAPTION, CAPTION.lower()], [1, 2, 3])]
    with path.open("w", newline="") as stream:
        out = csv.writer(stream, delimiter="\t")
        out.writerow(["title", "filepath", *(f"column{i}" for i in range(8))])
        out.writerows([CAPTION, f"{row:012}.jpg", *literals] for row in range(count))


def read_table(path: str) -> None:
    """What the public code does before its first batch."""
    begin = time.process_time()
    before = psutil.Process().memory_full_info().uss
    with open(path, newline="") as stream:
        table = csv.reader(stream, delimiter="\t")
        next(table)
        kept = [[*row[:2], *map(ast.literal_eval, row[2:])] for row in table]
    grown = (psutil.Process().memory_full_info().uss - before) / MB
    seconds = time.process_time() - begin
    print(
        f"TSV of {len(kept):,} rows x 8 Python literals: {seconds:.1f} s of CPU, {grown:.0f} MB", flush=True
    )


def main() -> None:
    """Run all of it in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=566_000)
    parser.add_argument("--images", type=int, default=1000, help="in the shared tar, and captions of a shard")
    parser.add_argument("--batches", type=int, default=12, help="of 256, for each figure")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "table.tsv", 110_000)
        fresh(read_table, str(folder / "table.tsv"))
        begin = time.perf_counter()
        store = make_store(folder, options.captions, options.images)
        print(
            f"store of {options.captions:,} captions made in {time.perf_counter() - begin:.0f} s", flush=True
        )
        for where in ("", "score >= 0.4 and kind <> 'object'"):
            fresh(first_batch, store, where, options.workers, options.batches)
        (folder / "small").mkdir()
        small, cache = make_store(folder / "small", 4 * options.images, options.images), str(folder / "cache")
        begin_cpu = time.process_time()
        written = write_cache(small, cache, log=lambda line: None)
        print(
            f"{written / (time.process_time() - begin_cpu):.0f} images/s of one core into the cache",
            flush=True,
        )
        fresh(rate, small, "the originals", options.batches)
        fresh(rate, small, "the cache", options.batches, cache)


if __name__ == "__main__":
    sys.exit(main())
