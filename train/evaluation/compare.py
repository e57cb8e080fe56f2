"""Runs against a baseline, item by item: the same questions, so paired tests."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.train.evaluation.judged import Judged, Mean
from macco.train.evaluation.report import ITEMS, number, table
from macco.train.evaluation.results import judged, read_items
from macco.train.evaluation.scorer import OK
from macco.train.evaluation.statistics import mcnemar, paired_bootstrap, paired_p

KEYS = ["benchmark", "subset", "item"]
_VALUES = ("baseline", "percent", "difference", "low", "high", "p")
FiguresOf = Callable[[str], Callable[[Judged], dict[str, Mean]]]


def compare(runs: Sequence[Path], figures_of: FiguresOf, seed: int = 0) -> list[dict[str, Any]]:
    """Every figure that the first run and another share: both values, the difference, its 95 % interval and p.

    Only items that both runs could read are compared; a figure of which a whole part is left out so is None. p is
    McNemar's, exact, where a figure is one plain mean (with `gained` and `lost` items), else of the paired
    bootstrap.

    Raises:
        UserError: fewer than two runs, no item in common, or items of one name that ask different things.
    """
    if len(runs) < 2:
        raise UserError("compare needs two runs or more: the first is the baseline")
    first, *others = [read_items(run / ITEMS) for run in runs]
    rows = []
    for run, items in zip(runs[1:], others, strict=True):
        a, b = _shared(first, items)
        if OK not in a["status"].to_pylist():
            raise UserError(f"{runs[0]} and {run} have no item in common")
        for benchmark in a["benchmark"].unique().to_pylist():
            chosen = [one.filter(pc.equal(one["benchmark"], benchmark)) for one in (a, b)]
            before, after = (figures_of(benchmark)(judged(one)) for one in chosen)
            rows += [
                {
                    "run": str(run),
                    "benchmark": benchmark,
                    "figure": name,
                    **_difference(mean, after[name], seed),
                }
                for name, mean in before.items()
                if name in after  # no answer of a run that could read none names a criterion
            ]
    return rows


def _shared(a: pa.Table, b: pa.Table) -> tuple[pa.Table, ...]:
    """The items of both, in the same order, with one status: not ok where either is not.

    Those stay, so that their classes are missed by what is computed of all classes.
    """
    keys = [list(zip(*(one[key].to_pylist() for key in KEYS), strict=True)) for one in (a, b)]
    places = [{key: place for place, key in enumerate(one)} for one in keys]
    both = [key for key in keys[0] if key in places[1]]
    a, b = (one.take([where[key] for key in both]) for one, where in zip((a, b), places, strict=True))
    for column in ("captions", "category"):
        pairs = zip(both, a[column].to_pylist(), b[column].to_pylist(), strict=True)
        if different := next((key for key, left, right in pairs if left != right), None):
            raise UserError(
                f"{' '.join(different)} has other {column} in the second run: they read different files"
            )
    status = pc.if_else(pc.equal(a["status"], OK), b["status"], a["status"])
    index = a.schema.get_field_index("status")
    return tuple(one.set_column(index, one.schema.field(index), status) for one in (a, b))


def _difference(a: Mean, b: Mean, seed: int) -> dict[str, Any]:
    if np.isnan(a.value) or np.isnan(b.value):
        return dict.fromkeys(_VALUES) | {"units": a.count, "test": "undefined"}
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
    put_file(out / "compare.json", (json.dumps(list(rows), indent=1) + "\n").encode())
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
            *(
                ("–", "–", "–")
                if row["difference"] is None
                else (
                    f"{row['difference']:+.1f}",
                    f"{row['low']:+.1f} – {row['high']:+.1f}",
                    f"{row['p']:.2g}",
                )
            ),
            row["test"],
            row["units"],
        ]
        for row in rows
    ]
    put_file(out / "compare.md", ("\n".join([*lines, *table(header, cells)]) + "\n").encode())
