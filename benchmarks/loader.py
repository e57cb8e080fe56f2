"""How soon the first batch comes, what a worker weighs, and how many samples a core makes.

    python benchmarks/loader.py [--captions 566000] [--images 1000] [--batches 12] [--only rates]

Draws some 640 x 480 images into one tar, and makes a store whose shards, one caption an image, all point into it.
Samples a second are of one core and its CPU time, taken by turns: ours, the plain way (tests/support/plain_pairs.py:
Pillow's resize, one caption and one mask after the other), and open_clip's own transform and tokenizer on a webdataset
pipeline as its training has it, from the same images and captions, without masks.
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
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import torch
import webdataset
from PIL import Image

from macco.pipeline.merge import LOOSE, merge
from macco.pipeline.schema import SAMPLES
from macco.pipeline.store import Store
from macco.preprocess.exchange.cache import shrink, write_cache
from macco.train.data.loader import Loader
from macco.train.objectives.macco.batches import open_training_data
from tests.support import DATA
from tests.support.drawn import CAPTION, record, rows, tar
from tests.support.plain_pairs import PlainPairs

LINES = (DATA / "captions_coco.txt").read_text().splitlines()  # what a caption has beside its concepts
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
    said = [f"{CAPTION} {line}" for line in islice(cycle(LINES), images)]
    at = SAMPLES.get_field_index("caption")
    base["samples"] = base["samples"].set_column(at, SAMPLES.field(at), pa.array(said))
    for number in range(captions // images):
        if number and number % LOOSE == 0:  # as an extraction does
            merge(store)
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


def plain(loader: Loader) -> Loader:
    """The same loader, its samples made in the plain way."""
    recipe = loader.plan.recipe
    slow = PlainPairs(**{field.name: getattr(recipe, field.name) for field in fields(recipe)})
    loader.plan = replace(loader.plan, recipe=slow)
    return loader


def open_clips(folder: Path) -> Iterator[Any]:
    """Batches as open_clip's training reads them from the tars of a folder."""
    _, transform, _ = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    stages = (
        webdataset.SimpleShardList(sorted(map(str, folder.glob("*.tar")))),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(bufsize=256, initial=64),
        webdataset.decode("pilrgb"),
        webdataset.rename(image="jpg", text="txt"),
        webdataset.map_dict(image=transform, text=lambda text: tokenizer(text)[0]),
        webdataset.to_tuple("image", "text"),
        webdataset.batched(256),
    )
    return iter(webdataset.DataPipeline(*stages).repeat())


def rates(what: str, batches: int, made: Callable[[], dict[str, Iterable[Any]]]) -> None:
    """Samples of one core by each way, without its first batch, by turns."""
    torch.set_num_threads(1)
    # A loader's iteration is an epoch, of which another follows.
    streams = {name: chain.from_iterable(repeat(of)) for name, of in made().items()}
    seconds: dict[str, list[float]] = {name: [] for name in streams}
    for stream in streams.values():
        next(stream)
    for _ in range(batches):
        for name, stream in streams.items():
            begin = time.process_time()
            next(stream)
            seconds[name].append(time.process_time() - begin)
    middle = {name: 256 / statistics.median(each) for name, each in seconds.items()}
    first = next(iter(middle))
    shown = [f"{name} {value:.0f} (1/{middle[first] / value:.2f})" for name, value in middle.items()]
    print(f"samples/s of one core from {what}: " + ", ".join(shown), flush=True)


def all_rates(store: str, caches: dict[str, str], tars: dict[str, str], batches: int) -> None:
    """From the originals, from a cache, and from a cache of pixels with the crops resized on the device."""

    def from_originals() -> dict[str, Iterable[Any]]:
        ours, slow = load(store, workers=0), plain(load(store, workers=0))
        return {"ours": ours, "plain": slow, "open_clip": open_clips(Path(tars["originals"]))}

    def from_cache() -> dict[str, Iterable[Any]]:
        ours, slow = (load(store, workers=0, cache=caches["jpegs"]) for _ in range(2))
        return {"ours": ours, "plain": plain(slow), "open_clip": open_clips(Path(tars["jpegs"]))}

    def from_pixels() -> dict[str, Iterable[Any]]:
        ours, slow = (load(store, workers=0, cache=caches["pixels"]) for _ in range(2))
        on_device = load(store, workers=0, cache=caches["pixels"], crop="device")
        return {"device": on_device, "ours": ours, "plain": plain(slow)}

    rates("the originals", batches, from_originals)
    rates("a cache of JPEGs", batches, from_cache)
    rates("a cache of pixels", batches, from_pixels)


def write_tar(path: Path, images: Iterable[bytes], captions: Iterable[str], ending: str = "txt") -> None:
    """A tar of images and captions as webdataset reads it."""
    path.parent.mkdir()
    with tarfile.open(path, "w") as out:
        for number, (image, caption) in enumerate(zip(images, captions, strict=False)):
            for kind, content in (("jpg", image), (ending, caption.encode())):
                info = tarfile.TarInfo(f"{number:09}.{kind}")
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))


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


def write_tars(folder: Path) -> dict[str, str]:
    """What open_clip's pipeline reads: the originals, and those of the cache."""
    with tarfile.open(folder / "small" / "shared.tar") as tar_:
        originals = [
            tar_.extractfile(one).read()
            for one in tar_
            if one.name.endswith(".jpg")  # type: ignore[union-attr]
        ]
    found = {"originals": folder / "tars", "jpegs": folder / "small_tars"}
    write_tar(found["originals"] / "0.tar", originals, cycle(LINES))
    write_tar(found["jpegs"] / "0.tar", (shrink(one, 256, 90) for one in originals), cycle(LINES))
    return {name: str(path) for name, path in found.items()}


def main() -> None:
    """Run all of it in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=566_000)
    parser.add_argument("--images", type=int, default=1000, help="in the shared tar, and captions of a shard")
    parser.add_argument("--batches", type=int, default=12, help="of 256, for each figure")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=["first", "rates"], help="half of it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "rates":
            write_table(folder / "table.tsv", 110_000)
            fresh(read_table, str(folder / "table.tsv"))
            store = make_store(folder, options.captions, options.images)
            for where in ("", "score >= 0.4 and kind <> 'object'"):
                fresh(first_batch, store, where, options.workers, options.batches)
        if options.only == "first":
            return
        (folder / "small").mkdir()
        small = make_store(folder / "small", 8 * options.images, options.images)
        caches = {form: str(folder / form) for form in ("jpegs", "pixels")}
        for form, cache in caches.items():
            begin_cpu = time.process_time()
            written = write_cache(small, cache, pixels=form == "pixels", log=lambda line: None)
            used = time.process_time() - begin_cpu
            print(f"{written / used:.0f} images/s of one core into a cache of {form}", flush=True)
        fresh(all_rates, small, caches, write_tars(folder), options.batches)


if __name__ == "__main__":
    sys.exit(main())
