"""Official files written small, and what a benchmark makes of scores written by hand."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.results import write_items
from macco.train.evaluation.run import Outcome, run_benchmark
from tests.support.scored import TableScorer


def write(root: Path, name: str, subset: str, rows: Any) -> None:
    path = root / name / load_benchmark_manifest(name).files[subset].path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def write_csv(root: Path, name: str, subset: str, rows: Sequence[Mapping[str, Any]]) -> None:
    path = root / name / load_benchmark_manifest(name).files[subset].path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run(root: Path, name: str, scorer: TableScorer) -> Outcome:
    return run_benchmark(scorer, BENCHMARKS[name](Places(root)))


def figures(outcome: Outcome) -> dict[str, float | None]:
    return {one["figure"]: one["percent"] for one in outcome.report["figures"]}


def sql(outcome: Outcome, query: str, folder: Path) -> Any:
    """One number out of the item file, by SQL on the raw scores alone."""
    write_items([outcome.items], folder / "items.parquet")
    return duckdb.sql(query.replace("items", f"'{folder / 'items.parquet'}'")).fetchall()[0][0]


def against(answers: str) -> TableScorer:
    """Item i: right where its letter is +, wrong at -, a tie at =."""
    truth = {(f"{i}.jpg", f"yes {i}"): 0.5 for i in range(len(answers))}
    other = {(f"{i}.jpg", f"no {i}"): {"+": 0.4, "-": 0.6, "=": 0.5}[a] for i, a in enumerate(answers)}
    return TableScorer(truth | other)
