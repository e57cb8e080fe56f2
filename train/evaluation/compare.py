"""Runs against a baseline, item by item: the same questions, so paired tests."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from train.evaluation.judged import Judged, Mean
from train.evaluation.report import ITEMS, number, table
from train.evaluation.results import judged, read_items
from train.evaluation.statistics import mcnemar, paired_bootstrap, paired_p

KEYS = ["benchmark", "subset", "item"]
FiguresOf = Callable[[str], Callable[[Judged], dict[str, Mean]]]


def compare(runs: Sequence[Path], figures_of: FiguresOf, seed: int = 0) -> list[dict[str, Any]]:
    """Every figure that the first run and another share: both values, the difference, its 95 % interval and p.

    Only items that both runs could read are compared. p is McNemar's, exact, where a figure is one plain mean
    (with `gained` and `lost` items), else of the paired bootstrap.

    Raises:
        UserError: fewer than two runs, or no item in common.
    """
    if len(runs) < 2:
        raise UserError("compare needs two runs or more: the first is the baseline")
    first, *others = [read_items(run / ITEMS) for run in runs]
    rows = []
    for run, items in zip(runs[1:], others, strict=True):
        a, b = _shared(first, items)
        if not len(a):
            raise UserError(f"{runs[0]} and {run} have no item in common")
        for benchmark in a["benchmark"].unique().to_pylist():
            chosen = [one.filter(pc.equal(one["benchmark"], benchmark)) for one in (a, b)]
            before, after = (figures_of(benchmark)(judged(one)) for one in chosen)
            rows += [
                {
                    "run": run.name,
                    "benchmark": benchmark,
                    "figure": name,
                    **_difference(mean, after[name], seed),
                }
                for name, mean in before.items()
                if name in after and not np.isnan(mean.value)
            ]
    return rows


def _shared(a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The items that are ok in both, in the same order."""
    ok = [one.filter(pc.equal(one["status"], "ok")) for one in (a, b)]
    keys = [list(zip(*(one[key].to_pylist() for key in KEYS), strict=True)) for one in ok]
    places = [{key: place for place, key in enumerate(one)} for one in keys]
    both = [key for key in keys[0] if key in places[1]]
    return ok[0].take([places[0][key] for key in both]), ok[1].take([places[1][key] for key in both])


def _difference(a: Mean, b: Mean, seed: int) -> dict[str, Any]:
    draws = paired_bootstrap(a, b, np.random.default_rng(seed))
    low, high = np.quantile(draws, [0.025, 0.975])
    result = {
        "baseline": 100 * a.value,
        "percent": 100 * b.value,
        "difference": 100 * (b.value - a.value),
        "low": 100 * float(low),
        "high": 100 * float(high),
        "units": a.count,
    }
    if a.units is None or b.units is None:
        return result | {"p": paired_p(draws), "test": "paired bootstrap"}
    gained, lost = int((b.units & ~a.units).sum()), int((a.units & ~b.units).sum())
    return result | {"p": mcnemar(gained, lost), "test": "McNemar", "gained": gained, "lost": lost}


def write_comparison(rows: Sequence[dict[str, Any]], baseline: str, out: Path) -> None:
    """Write compare.json and compare.md into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(list(rows), indent=1) + "\n", "utf-8")
    lines = [
        f"# Against {baseline}",
        "",
        "Items that both runs could read; differences in percent points.",
        "",
    ]
    header = ["figure", "run", "baseline", "percent", "difference", "95 %", "p", "test", "units"]
    cells = [
        [
            f"{row['benchmark']}: {row['figure']}",
            row["run"],
            number(row["baseline"]),
            number(row["percent"]),
            f"{row['difference']:+.1f}",
            f"{row['low']:+.1f} – {row['high']:+.1f}",
            f"{row['p']:.2g}",
            row["test"],
            row["units"],
        ]
        for row in rows
    ]
    (out / "compare.md").write_text("\n".join([*lines, *table(header, cells)]) + "\n", "utf-8")
