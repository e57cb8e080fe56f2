"""Stores of many small shards: what opening, counting and training cost, before and after they are put together.

    python benchmarks/shards.py [--shards 100000] [--rows 15] [--boxes 7] [--loose 10000] [--keep DIR]

Builds a store as an extraction does (every LOOSE commits are put together), without waiting for the disk, and one of
`--loose` shards that were never put together. Each question is asked in a process of its own: seconds, and peak memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from macco.pipeline.merge import LOOSE, merge
from macco.pipeline.schema import BOXES, CONCEPTS, SAMPLES
from macco.pipeline.store import Store

LEMMAS = np.array(["dog", "cat", "man", "umbrella", "sofa", "red", "small", "sit on", "next to", "hold"])
KINDS = np.array(["object"] * 5 + ["attribute"] * 2 + ["relation"] * 3)
CONCEPTS_PER_CAPTION = 8  # every shape of caption below has so many

ASKED = {
    "status": "from macco.preprocess.look.status import status; status(store)",
    "count": "connect(store).execute('SELECT count(*) FROM samples').fetchall()",
    "top relations": "connect(store).execute(\"SELECT lemma, count(*) FROM concepts WHERE kind = 'relation' "
    'GROUP BY 1 ORDER BY 2 DESC LIMIT 10").fetchall()',
    "scan of concept_boxes": "connect(store).execute('SELECT count(*), avg(score) FROM concept_boxes').fetchall()",
    "stats": "from macco.preprocess.look.stats import stats; stats(store, threshold=0.3)",
    "training opened": "from macco.train.config import MaskConfig; from macco.train.data.index import build; "
    "from macco.train.data.selection import Selection; build(store, Selection.of('', MaskConfig()), print)",
}


def shards(count: int, rows: int, boxes: int, seed: int = 0) -> Iterator[tuple[str, dict[str, pa.Table]]]:
    """Drawn rows: five captions an image, eight concepts a caption, half of them objects, `boxes` boxes a caption."""
    random = np.random.default_rng(seed)
    for number in range(count):
        shard = f"{number:07}"
        keys = [f"{number * rows + row // 5:09}" for row in range(rows)]
        samples = [f"cc/{shard}/{key}/{row % 5}" for row, key in enumerate(keys)]
        picked = random.integers(len(LEMMAS), size=rows * CONCEPTS_PER_CAPTION)
        picked[::CONCEPTS_PER_CAPTION] = random.integers(5, size=rows)  # an object first
        owner = np.repeat(np.arange(rows), CONCEPTS_PER_CAPTION)
        place = np.tile(np.arange(CONCEPTS_PER_CAPTION), rows)
        ids = [f"{samples[row]}/{at}" for row, at in zip(owner, place, strict=True)]
        first = [ids[row * CONCEPTS_PER_CAPTION] for row in owner]
        kinds = KINDS[picked]
        yield (
            shard,
            {
                "samples": _table(SAMPLES, rows, shard, keys, samples, np.arange(rows) % 5)
                | {"row": np.arange(rows), "caption": ["a red dog is sitting on a small sofa next to a man"] * rows}
                | {"source": [f"/corpus/{shard}.tar"] * rows, "status": ["ok"] * rows}
                | {"member": [f"{key}.jpg" for key in keys], "width": [640] * rows, "height": [480] * rows}
                | {"dhash": random.integers(2**63, size=rows, dtype=np.uint64)},
                "concepts": _table(CONCEPTS, len(ids), shard, *_of(owner, keys, samples))
                | {"concept_id": ids, "kind": kinds, "part": [0] * len(ids), "text": LEMMAS[picked]}
                | {"lemma": LEMMAS[picked], "head": LEMMAS[picked], "pos": ["NOUN"] * len(ids)}
                | {"start": 6 * place, "end": 6 * place + 5, "head_start": 6 * place, "head_end": 6 * place + 5}
                | {"owner_id": [one if kind == "attribute" else None for one, kind in zip(first, kinds, strict=True)]}
                | {
                    name: [one if kind == "relation" else None for one, kind in zip(first, kinds, strict=True)]
                    for name in ("subject_id", "object_id")
                },
                "boxes": _boxes(random, shard, keys, samples, ids, rows, boxes),
            },
        )  # fmt: skip


def _of(owner: Any, keys: list[str], samples: list[str]) -> tuple[list[str], list[str], Any]:
    return [keys[row] for row in owner], [samples[row] for row in owner], owner % 5


def _table(
    schema: pa.Schema, rows: int, shard: str, keys: Any, samples: Any, captions: Any
) -> dict[str, Any]:
    return {
        "dataset": ["cc"] * rows,
        "shard": [shard] * rows,
        "key": keys,
        "sample_id": samples,
        "caption_id": captions,
    }


def _boxes(
    random: np.random.Generator,
    shard: str,
    keys: list[str],
    samples: list[str],
    ids: list[str],
    rows: int,
    boxes: int,
) -> dict[str, Any]:
    owner = np.repeat(np.arange(rows), boxes)
    corners = random.random((4, len(owner)), np.float32) / 2
    return (
        _table(BOXES, len(owner), shard, *_of(owner, keys, samples))
        | {"concept_id": [ids[row * CONCEPTS_PER_CAPTION] for row in owner]}
        | {"x0": corners[0], "y0": corners[1], "x1": 0.5 + corners[2], "y1": 0.5 + corners[3]}
        | {"score": random.random(len(owner), np.float32)}
    )


def _arrow(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    rows = len(columns["shard"])
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(rows, field.type)
            for field in schema
        },
        schema,
    )


def build(url: str, count: int, rows: int, boxes: int, together: bool) -> None:
    """Commit `count` shards, and put them together as a run does, if at all."""
    os.fsync = lambda file: None
    store, merging = Store.create(url, {"made": "for the benchmark"}), 0.0
    start = time.process_time()
    for number, (shard, tables) in enumerate(shards(count, rows, boxes), 1):
        ready = {
            name: _arrow(tables[name], schema)
            for name, schema in (("samples", SAMPLES), ("concepts", CONCEPTS), ("boxes", BOXES))
        }
        record = {
            "shard": shard, "dataset": "cc", "max_side": 1333, "statuses": {"ok": rows},
            "input": {"dataset": "cc", "name": shard, "url": f"/corpus/{shard}.tar", "format": "webdataset"}
            | {"fingerprint": {"size": 61440, "mtime": 1.79e9 + number}, "content": {"rows": rows, "digest": "0" * 32}},
            "seconds": {"total": 0.2, "parse": 0.1}, "versions": {"macco": "0.2.0", "torch": "2.15.0"},
        }  # fmt: skip
        store.commit(shard, ready, record)
        if together and number % LOOSE == 0:
            begun = time.process_time()
            merge(store)
            merging += time.process_time() - begun
    print(
        f"{url}: {count:,} shards written in {time.process_time() - start:.0f} s of CPU"
        + (
            f", {merging:.0f} of them to put them together: {1000 * merging / count:.2f} ms a shard"
            if together
            else ""
        )
    )
    store.close()


def ask(url: str) -> None:
    """Ask every question in a process of its own."""
    for name, code in ASKED.items():
        program = (
            "import time, sys, json, resource; from macco.pipeline.store import Store; "
            "from macco.pipeline.query import connect; import macco.preprocess.look.stats\n"
            f"if {name == 'training opened'}: import macco.train.data.index\n"
            "import contextlib, io, psutil; before = psutil.Process().memory_info().rss\n"
            f"begun = time.time(); store = Store.open({url!r})\n"
            f"with contextlib.redirect_stdout(io.StringIO()): exec({code!r})\n"
            "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
            "print(json.dumps([time.time() - begun, (peak - before) / 2**20]))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        seconds, memory = json.loads(done.stdout[done.stdout.rindex("[") :])
        print(f"  {name:24} {seconds:7.2f} s {memory:7.0f} MB more than the imports")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=15)
    parser.add_argument("--boxes", type=int, default=7, help="of a caption")
    parser.add_argument("--loose", type=int, default=10_000)
    parser.add_argument("--keep", help="where to make the stores, or to find them made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.keep or folder)
        for name, count, together in (("packs", options.shards, True), ("loose", options.loose, False)):
            url = str(place / name)
            if not (place / name / "store.json").exists():
                build(url, count, options.rows, options.boxes, together)
            print(f"{name}: {len(Store.open(url).committed()):,} shards of {options.rows} rows")
            ask(url)
        begun = time.process_time()
        store = Store.create(str(place / "loose"), {"made": "for the benchmark"})
        merge(store, everything=True)
        used = time.process_time() - begun
        print(f"compact of {options.loose:,} shards: {used:.1f} s of CPU, peak {_peak():.0f} MB")
        store.close()
        ask(str(place / "loose"))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
