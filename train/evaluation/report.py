"""One report per run: JSON for programs, Markdown for people."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from macco.pipeline.folder import put_file
from macco.train.evaluation.results import write_items
from macco.train.evaluation.run import Outcome

ITEMS: Final = "items.parquet"
NOTE: Final = (
    "Percent with bootstrap 95 % intervals (items resampled within each class). Strict rules: a tie is wrong, "
    'unless a figure\'s name or its manifest says otherwise. "used" counts items whose images and captions '
    "could all be read. "
    "Figures of the MACCO paper are probably with GELU, although the weights were trained with QuickGELU."
)


def write_report(
    folder: Path, about: dict[str, Any], outcomes: Sequence[Outcome], missing: Sequence[str]
) -> None:
    """Write report.json, report.md and items.parquet into `folder`.

    about: what was evaluated (model, activation, versions); missing: lines about data sets not there.
    """
    report = {**about, "benchmarks": [one.report for one in outcomes], "missing": list(missing)}
    write_items([one.items for one in outcomes], folder / ITEMS)
    put_file(folder / "report.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    put_file(folder / "report.md", markdown(report).encode())


def markdown(report: dict[str, Any]) -> str:
    """The same report as a page."""
    parts = [f"# {report['model']}", "", NOTE, ""]
    parts += [f"- {key}: {value}" for key, value in report.items() if key not in ("benchmarks", "missing")]
    for benchmark in report["benchmarks"]:
        parts += [
            "",
            f"## {benchmark['title']} ({benchmark['benchmark']})",
            "",
            *_figures(benchmark["figures"]),
        ]
        parts += ["", *_counts(benchmark["counts"])]
        bad = {status: count for status, count in benchmark["statuses"].items() if status != "ok"}
        notes = [*benchmark["notes"], *(f"{count} items: {status}" for status, count in bad.items())]
        parts += ["", *(f"- {note}" for note in notes)] if notes else []
    if report["missing"]:
        parts += ["", "## Not run", "", *(f"- {line}" for line in report["missing"])]
    return "\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table, cells shown as they are."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def number(value: float | None, digits: int = 1) -> str:
    """A figure for people; undefined ones as a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def _figures(figures: Sequence[dict[str, Any]]) -> list[str]:
    models = list(dict.fromkeys(model for one in figures for model in one["published"]))
    rows = [
        [
            one["figure"],
            number(one["percent"]),
            "" if one["low"] is None else f"{number(one['low'])} – {number(one['high'])}",
            one["units"],
            *(number(one["published"].get(model)) if model in one["published"] else "" for model in models),
        ]
        for one in figures
    ]
    return table(["figure", "percent", "95 %", "units", *models], rows)


def _counts(counts: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        [
            one["subset"],
            one["used"],
            one["in_files"],
            "?" if one["expected"] is None else one["expected"],
            one["ties"],
        ]
        for one in counts
    ]
    return table(["subset", "used", "in files", "expected", "ties"], rows)
