"""The table of tasks: commands that faults happen to. A further one is a line in it."""

from collections import Counter
from pathlib import Path

from benchmarks.faults.scene import Rows, Task


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


def _extract(corpus: Path, out: Path) -> list[str]:
    return ["extract", "--shards", f"{corpus}/*.tar", "--out", str(out), "--device", "cpu"]


TASKS: dict[str, Task] = {
    "extract": Task(_extract, store_rows, more=("--workers", "0")),
    "compact": Task(lambda _, out: ["compact", str(out)], store_rows, extracted=lambda out: out),
}
