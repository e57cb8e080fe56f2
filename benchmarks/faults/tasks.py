"""The table of tasks: commands that faults happen to. A further one is a line in it.

Each reads a source (a corpus, or a store that is there) and makes `out`; `made` reads all of it as its readers do.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Rows = Counter[tuple[Any, ...]]

CORPUS: Final = "corpus"
STORE: Final = "store"
COPY: Final = "copy"  # out itself, which is a store before


@dataclass(frozen=True)
class Task:
    """A command that makes something, and how to read what it made."""

    arguments: Callable[[Path, Path], list[str]]  # (source, out) -> the program and its arguments
    made: Callable[[Path], Rows]  # everything in out
    source: str = STORE
    once: bool = False  # the command refuses an out that is whole
    alone: tuple[str, ...] = ()  # arguments, where it is done in one process


def store_rows(out: Path) -> Rows:
    """Every row that the views of a store show; numbers to a precision that no machine's state changes."""
    from macco.pipeline.query import connect
    from macco.pipeline.schema import TABLES
    from macco.pipeline.store import Store

    found: Rows = Counter()
    connection = connect(Store.open(str(out)))
    for name in TABLES:
        for row in connection.execute(f"SELECT * FROM {name}").fetchall():
            found[name, *(round(value, 3) if isinstance(value, float) else str(value) for value in row)] += 1
    return found


def negatives_rows(out: Path) -> Rows:
    """The rows of a store, and its negatives, of which none may be in two files."""
    from macco.pipeline.query import connect
    from macco.pipeline.store import Store

    rows = connect(Store.open(str(out))).execute("SELECT * FROM negatives").fetchall()
    return store_rows(out) + Counter(("negatives", *map(str, row)) for row in rows)


def cached(out: Path) -> Rows:
    """Every image of a cache that its tables show, with what is in it."""
    import pyarrow.parquet as pq

    from macco.pipeline.cache import ImageCache

    cache, found = ImageCache.open(str(out)), Rows()
    for shard in sorted(cache.shards()):
        images = cache.read(f"{shard}.{cache.form}")
        for row in pq.read_table(out / f"{shard}.parquet").to_pylist():
            picture = images[row["at"] : row["at"] + row["bytes"]]
            found[row["shard"], row["key"], row["source"], row["offset"], _digest(picture)] += 1
    return found


def files(out: Path) -> Rows:
    """Every file, of Parquet every row; but not those that a killed writer left under a name of nobody's."""
    import pyarrow.parquet as pq

    found: Rows = Counter()
    for file in (file for file in out.rglob("*") if file.is_file()):
        place = file.relative_to(out)
        if any(part.startswith(".tmp-") for part in place.parts):
            continue
        if file.suffix == ".parquet":
            found.update((str(place), str(row)) for row in pq.read_table(file).to_pylist())
        else:  # a card says how it was made
            found[str(place), _digest(file.read_bytes().replace(str(out).encode(), b""))] += 1
    return found


def trained(out: Path) -> Rows:
    """Every tensor of a run's last checkpoint and of its product, and every loss that it wrote."""
    from macco.train.runs import checkpoint, metrics

    found = Counter(_leaves(checkpoint.load(out, checkpoint.LATEST)))
    for row in metrics.read(out):
        found.update((row["step"], name, value) for name, value in row.items() if name not in _PACE)
    found[str((out / "report.html").is_file()),] += 1
    return found + files(out / "model")


_PACE: Final = ("samples_per_second", "waiting")  # of a row of metrics: another one each time


def _leaves(value: Any, *place: str) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for name, one in value.items() for leaf in _leaves(one, *place, str(name))]
    if isinstance(value, list | tuple):
        return [leaf for number, one in enumerate(value) for leaf in _leaves(one, *place, str(number))]
    return [(*place, _digest(value.numpy().tobytes()) if hasattr(value, "numpy") else str(value))]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _extract(corpus: Path, out: Path) -> list[str]:
    return ["macco-prep", "extract", "--shards", f"{corpus}/*.tar", "--out", str(out), "--device", "cpu"]


def _export(name: str, format: str) -> Callable[[Path, Path], list[str]]:
    return lambda store, out: [
        "macco-prep", "export", str(store), "--out", str(out / name), "--format", format
    ]  # fmt: skip


def _run(store: Path, out: Path) -> list[str]:
    steps = ["steps=2", "save_every=1", "log_every=1", "data.batch_size=4", "device=cpu"]
    return ["macco-train", "run", "--store", str(store), "--preset", "demo", "--out", str(out), *steps]


TASKS: Final[dict[str, Task]] = {
    "extract": Task(_extract, store_rows, CORPUS, alone=("--workers", "0")),
    "compact": Task(lambda _, out: ["macco-prep", "compact", str(out)], store_rows, COPY),
    "cache": Task(
        lambda store, out: ["macco-prep", "cache", str(store), "--out", str(out), "--workers", "1"], cached
    ),
    "export a file": Task(_export("boxes.json", "coco"), files),
    "export a folder": Task(_export("concepts", "hf"), files, once=True),
    "negatives": Task(lambda _, out: ["macco-train", "negatives", str(out)], negatives_rows, COPY),
    "run": Task(_run, trained),
}
