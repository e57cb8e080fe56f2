"""Stores of many small shards: what opening, counting and training cost, before and after they are put together.

    python benchmarks/shards.py [--shards 100000] [--rows 40] [--loose 10000] [--keep DIR]

Builds a store as an extraction does (every LOOSE commits are put together), without waiting for the disk, and one of
`--loose` shards that were never put together; concepts and boxes lie in captions as in the demo's.
Each question is asked in a process of its own: seconds, those of CPU, and peak memory.
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

OBJECT, ATTRIBUTE, RELATION = range(3)
KINDS = np.array(["object", "attribute", "relation"])
LEMMAS = np.array(
    [
        ["dog", "cat", "man", "umbrella", "sofa", "palm tree", "kettle", "bus"],
        ["red", "small", "blue", "large", "orange", "white", "green", "black"],
        ["sit on", "next to", "hold", "above", "below", "float over", "to the left of", "under"],
    ]
)
# As the extraction of 300 demo images has them (macco-prep demo --images 300), 1,500 captions: objects, attributes and
# relations of a caption, and in how many captions; and how many objects have 1, 2, 3, 4 boxes. An attribute is as
# likely of the first object as of the second; a relation is of the first and the second, or the third and the fourth.
SHAPES = {
    (2, 2, 1): 588, (2, 3, 1): 310, (2, 1, 1): 192, (2, 2, 0): 118, (1, 1, 0): 85, (2, 4, 1): 57, (2, 3, 0): 47,
    (2, 1, 0): 19, (2, 0, 1): 19, (3, 3, 0): 12, (3, 2, 0): 7, (3, 4, 0): 7, (4, 3, 0): 6, (4, 5, 0): 5, (1, 2, 0): 5,
    (4, 4, 2): 4, (4, 3, 2): 4,
}  # fmt: skip
BOXES_OF_AN_OBJECT = (2292, 552, 132, 11)

ASKED = {
    "status": "from macco.preprocess.look.status import status; status(store)",
    "count": "connect(store).execute('SELECT count(*) FROM samples').fetchall()",
    "top relations": "connect(store).execute(\"SELECT lemma, count(*) FROM concepts WHERE kind = 'relation' "
    'GROUP BY 1 ORDER BY 2 DESC LIMIT 10").fetchall()',
    "scan of concept_boxes": "connect(store).execute('SELECT count(*), avg(score) FROM concept_boxes').fetchall()",
    "top triplets": "connect(store).execute('SELECT subject, relation, object, count(*) AS n FROM triplets "
    "GROUP BY ALL ORDER BY n DESC LIMIT 10').fetchall()",
    "triplets of a shard": 'connect(store).execute("SELECT count(*), max(subject_box.score) FROM triplets '
    "WHERE shard = '0000007'\").fetchall()",
    "all triplets": "connect(store).execute('SELECT count(*), max(subject_box.score), max(object_box.score) "
    "FROM triplets').fetchall()",
    "stats": "from macco.preprocess.look.stats import stats; stats(store, threshold=0.3)",
    "training opened": "from macco.train.config import MaskConfig; from macco.train.data.index import build; "
    "from macco.train.data.selection import Selection; build(store, Selection.of('', MaskConfig()), print)",
}


def shards(count: int, rows: int, seed: int = 0) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Drawn rows: five captions an image, concepts and boxes as SHAPES and BOXES_OF_AN_OBJECT have them."""
    random = np.random.default_rng(seed)
    shapes, weights = np.array(list(SHAPES)), np.array(list(SHAPES.values()))
    for number in range(count):
        shard = f"{number:07}"
        keys = [f"{number * rows + row // 5:09}" for row in range(rows)]
        samples = [f"cc/{shard}/{key}/{row % 5}" for row, key in enumerate(keys)]
        counts = shapes[random.choice(len(shapes), rows, p=weights / weights.sum())]
        # Of every concept: its caption, its kind, its place in the caption and among those of its kind.
        owner = np.repeat(np.arange(rows), counts.sum(1))
        kind = np.repeat(np.tile(np.arange(3), rows), counts.ravel())
        first = np.cumsum(counts.sum(1)) - counts.sum(1)
        at = np.arange(len(owner)) - first[owner]
        order = at - (np.cumsum(counts, 1) - counts)[owner, kind]
        ids = np.array([f"{samples[row]}/{place}" for row, place in zip(owner, at, strict=True)], object)
        lemmas = LEMMAS[kind, random.integers(LEMMAS.shape[1], size=len(owner))]

        def end(
            kind_of: int, which: Any, first: Any = first, owner: Any = owner, kind: Any = kind, ids: Any = ids
        ) -> Any:
            """The object of so many of its caption, for concepts of a kind; others have none."""
            return np.where(kind == kind_of, ids[np.where(kind == kind_of, first[owner] + which, 0)], None)

        objects = np.flatnonzero(kind == OBJECT)
        share = np.array(BOXES_OF_AN_OBJECT) / sum(BOXES_OF_AN_OBJECT)
        boxed = np.repeat(objects, 1 + random.choice(len(share), len(objects), p=share))
        corners = random.random((4, len(boxed)), np.float32) / 2
        yield (
            shard,
            {
                "samples": _ids(rows, shard, keys, samples, np.arange(rows) % 5)
                | {"row": np.arange(rows), "caption": ["a red dog is sitting on a small sofa next to a man"] * rows}
                | {"source": [f"/corpus/{shard}.tar"] * rows, "status": ["ok"] * rows}
                | {"member": [f"{key}.jpg" for key in keys], "width": [640] * rows, "height": [480] * rows}
                | {"dhash": random.integers(2**63, size=rows, dtype=np.uint64)},
                "concepts": _ids(len(ids), shard, *_of(owner, keys, samples))
                | {"concept_id": ids, "kind": KINDS[kind], "part": np.zeros(len(ids), np.int8), "text": lemmas}
                | {"lemma": lemmas, "head": lemmas, "pos": ["NOUN"] * len(ids)}
                | {"start": 6 * at, "end": 6 * at + 5, "head_start": 6 * at, "head_end": 6 * at + 5}
                | {"denied": np.zeros(len(ids), bool), "owner_id": end(ATTRIBUTE, order % counts[owner, OBJECT])}
                | {"subject_id": end(RELATION, 2 * order), "object_id": end(RELATION, 2 * order + 1)},
                "boxes": _ids(len(boxed), shard, *_of(owner[boxed], keys, samples))
                | {"concept_id": ids[boxed], "score": random.random(len(boxed), np.float32)}
                | {"x0": corners[0], "y0": corners[1], "x1": 0.5 + corners[2], "y1": 0.5 + corners[3]},
            },
        )  # fmt: skip


def _of(owner: Any, keys: list[str], samples: list[str]) -> tuple[list[str], list[str], Any]:
    return [keys[row] for row in owner], [samples[row] for row in owner], owner % 5


def _ids(rows: int, shard: str, keys: Any, samples: Any, captions: Any) -> dict[str, Any]:
    return {
        "dataset": ["cc"] * rows,
        "shard": [shard] * rows,
        "key": keys,
        "sample_id": samples,
        "caption_id": captions,
    }


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


def build(url: str, count: int, rows: int, together: bool) -> None:
    """Commit `count` shards, and put them together as a run does, if at all."""
    os.fsync = lambda file: None
    store, merging = Store.create(url, {"made": "for the benchmark"}), 0.0
    start = time.process_time()
    for number, (shard, tables) in enumerate(shards(count, rows), 1):
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
            "import pandas; "  # pyarrow does, with its first list; the commands keep it from that
            "import time, sys, json, resource; from macco.pipeline.store import Store; "
            "from macco.pipeline.query import connect; import macco.preprocess.look.stats\n"
            f"if {name == 'training opened'}: import macco.train.data.index\n"
            "import contextlib, io, psutil; before = psutil.Process().memory_info().rss\n"
            f"begun, used = time.time(), time.process_time(); store = Store.open({url!r})\n"
            f"with contextlib.redirect_stdout(io.StringIO()): exec({code!r})\n"
            "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
            "print(json.dumps([time.time() - begun, time.process_time() - used, (peak - before) / 2**20]))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        seconds, used, memory = json.loads(done.stdout[done.stdout.rindex("[") :])
        print(f"  {name:24} {seconds:7.2f} s, {used:6.2f} s of CPU {memory:7.0f} MB more than the imports")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=40, help="captions of a shard")
    parser.add_argument("--loose", type=int, default=10_000)
    parser.add_argument("--keep", help="where to make the stores, or to find them made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.keep or folder)
        for name, count, together in (("packs", options.shards, True), ("loose", options.loose, False)):
            url = str(place / name)
            if not (place / name / "store.json").exists():
                build(url, count, options.rows, together)
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
