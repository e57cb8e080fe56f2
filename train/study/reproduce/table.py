"""The authors' table beside one's own, made of item-level files alone; table.sql makes it again without macco."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import mean, stdev
from string import Template
from typing import Any, Final

from macco.pipeline.folder import put_file
from macco.pipeline.views import quote
from macco.train.clip.load import ACTIVATIONS
from macco.train.evaluation.judged import Judged, Mean, mean_of
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.evaluation.registry import figures_of
from macco.train.evaluation.report import ITEMS, number
from macco.train.evaluation.report import table as lines_of
from macco.train.evaluation.results import judged, read_items
from macco.train.evaluation.statistics import interval
from macco.train.study.reproduce.published import Band, tables

OURS: Final = "by the benchmark's rule"
THEIRS: Final = "as the authors' code counts"
SQL: Final = Path(__file__).parent / "table.sql"
DEVIATIONS: Final = 2  # of the authors' four seeds: within so many a mean of one's own is theirs again


@dataclass(frozen=True)
class Reading:
    """One figure in percent, None where a part of it could not be read; its 95 % interval; items."""

    percent: float | None
    low: float | None
    high: float | None
    used: int
    in_files: int


def _relations(answers: Judged) -> Mean:
    """VG-Relation without the three relations that the authors' list drops beyond the official one."""
    lists = load_benchmark_manifest("aro_relation").lists
    dropped = {name for names in lists.values() for name in names}
    return mean_of(answers.mean(category=name) for name in answers.categories() if name not in dropped)


def _whats_up(answers: Judged) -> Mean:
    """COCO's two-object file in the place of GQA's."""
    parts = [answers.mean(one, criterion="lenient") for one in ("A", "B", "COCO one", "COCO two", "GQA one")]
    a, b, one, two, gqa = parts
    return mean_of(mean_of(pair) for pair in ((a, b), (one, two), (gqa, two)))


COUNTED_OTHERWISE: Final[Mapping[str, Callable[[Judged], Mean]]] = {
    "ARO Rel": _relations,
    "What's Up": _whats_up,
}


def readings(scored: Path) -> dict[str, dict[str, dict[str, Reading]]]:
    """Column -> counting -> activation -> Reading, of a folder that `evaluate` wrote; only what is there."""
    found: dict[str, dict[str, dict[str, Reading]]] = {}
    places = Places(scored)  # figures need no place of data
    for activation in ACTIVATIONS:
        known = {
            path.parent.name: judged(read_items(path))
            for path in sorted((scored / activation).glob(f"*/{ITEMS}"))
        }
        for title, column in tables().columns.items():
            if not set(column.of) <= set(known):
                continue
            own = [known[name] for name in column.of]
            means = [figures_of(name, places)(known[name])[figure] for name, figure in column.of.items()]
            counted = {OURS: means[0] if len(means) == 1 else mean_of(means)}
            if title in COUNTED_OTHERWISE:
                counted[THEIRS] = COUNTED_OTHERWISE[title](own[0])
            for counting, value in counted.items():
                reading = _reading(value, own)
                found.setdefault(title, {}).setdefault(counting, {})[activation] = reading
    return found


def _reading(value: Mean, own: Iterable[Judged]) -> Reading:
    used, there = (
        sum(int(n) for n in counts) for counts in zip(*((j.ok.sum(), len(j.ok)) for j in own), strict=True)
    )
    percent, low, high = (None if isnan(one) else 100 * one for one in (value.value, *interval(value)))
    return Reading(percent, low, high, used, there)


def _groups(runs: Mapping[str, Path]) -> dict[str, list[dict[str, dict[str, dict[str, Reading]]]]]:
    """Runs that differ by their seed alone, under the name before it."""
    grouped: dict[str, list[dict[str, dict[str, dict[str, Reading]]]]] = {}
    for name, folder in runs.items():
        grouped.setdefault(name.rpartition("-seed")[0] or name, []).append(readings(folder))
    return grouped


def summary(runs: Mapping[str, Path], backbones: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """One row for each group of runs, column and way to count: both activations beside the published figure.

    runs: name -> folder that `evaluate` wrote; names of one group end in -seedN. backbones: by name of the group.
    """
    rows = []
    for group, seeds in _groups(runs).items():
        model = backbones[group]
        trained = any(name.startswith(f"{group}-seed") for name in runs)
        for title, column in tables().columns.items():
            published = column.published.get(model or "")
            band = column.seeds if model == "ViT-B-32" and trained else None
            values: dict[str, dict[str, Any]] = {}
            for counting in (OURS, THEIRS):
                for activation in ACTIVATIONS:
                    several = [
                        one[title][counting][activation]
                        for one in seeds
                        if activation in one.get(title, {}).get(counting, {})
                    ]
                    if several:
                        values.setdefault(counting, {})[activation] = _spread(several, published, band)
            if values:
                rows.append(
                    {"model": group, "backbone": model, "column": title, "published": published}
                    | {"band": None if band is None else band.model_dump()}
                    | {"values": values, "verdict": verdict(values, published)}
                )
    return rows


def _spread(seeds: list[Reading], published: float | None, band: Band | None) -> dict[str, Any]:
    """Several seeds of one figure, and whether they are the published one: within its band, or their interval."""
    known = [one for one in seeds if one.percent is not None and one.low is not None and one.high is not None]
    percents = [one.percent for one in known if one.percent is not None]
    low, high = (
        mean(end for one in known if (end := getattr(one, name)) is not None) if known else None
        for name in ("low", "high")
    )
    percent = mean(percents) if percents else None
    if percent is None or published is None or low is None or high is None:
        matches = None
    elif band is not None:
        matches = abs(percent - band.mean) <= DEVIATIONS * band.sd
    else:
        matches = round(low, 1) <= published <= round(high, 1)  # published to one digit
    return {
        "percent": percent, "sd": stdev(percents) if len(percents) > 1 else None, "low": low, "high": high,
        "seeds": len(percents), "used": seeds[0].used, "in_files": seeds[0].in_files, "matches": matches,
    }  # fmt: skip


def verdict(values: Mapping[str, Mapping[str, Mapping[str, Any]]], published: float | None) -> str:
    """Which of the ways to read a figure give the published one; else which comes nearest, and by how much."""
    if published is None:
        return "none is published"
    every = {
        activation + ("" if counting == OURS else f", {counting}"): one
        for counting, by_activation in values.items()
        for activation, one in by_activation.items()
        if one["percent"] is not None
    }
    if not every:
        return "undefined: items are missing"
    if found := [name for name, one in every.items() if one["matches"]]:
        return "; ".join(found)
    nearest = min(every, key=lambda name: abs(every[name]["percent"] - published))
    return f"none; nearest {nearest} ({every[nearest]['percent'] - published:+.1f})"


def write_table(out: Path, rows: list[dict[str, Any]], notes: Iterable[str]) -> None:
    """Write table.json, table.md and table.sql into `out`."""
    put_file(out / "table.json", (json.dumps(rows, indent=1) + "\n").encode())
    put_file(out / "table.md", (markdown(rows, notes)).encode())
    lists = load_benchmark_manifest("aro_relation").lists
    symmetric = lists["symmetric"]
    dropped = [name for names in lists.values() for name in names]
    text = Template(SQL.read_text("utf-8")).substitute(
        items=quote(f"{(out / 'eval').resolve()}/*/*/*/{ITEMS}"),
        symmetric=", ".join(map(quote, symmetric)),
        dropped=", ".join(map(quote, dropped)),
    )
    put_file(out / "table.sql", text.encode())


def markdown(rows: list[dict[str, Any]], notes: Iterable[str]) -> str:
    """The page."""
    parts = ["# Beside the published figures", "", tables().source, ""]
    parts += [
        "Percent. In brackets the bootstrap 95 % interval over items (of several seeds: its mean ends), behind ± the "
        "deviation over seeds. A figure is the published one again where the mean of the seeds lies within "
        f"{DEVIATIONS} deviations of the authors' four seeds, and, where those are not known, where the published "
        "figure lies in the interval. * stands for items whose images are missing.",
    ]
    for group in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == group]
        parts += ["", f"## {group} ({own[0]['backbone'] or 'no size that is published'})", ""]
        cells = []
        for row in own:
            band = f" ({row['band']['mean']} ± {row['band']['sd']})" if row["band"] else ""
            for counting, values in row["values"].items():
                first = counting == OURS
                cells.append(
                    [row["column"] + ("" if first else f", {counting}")]
                    + [number(row["published"]) + band if first else ""]
                    + [_cell(values.get(activation)) for activation in ("quick_gelu", "gelu")]
                    + [row["verdict"] if first else ""]
                )
        parts += lines_of(["", "published (four seeds)", "QuickGELU", "GELU", "the published one is"], cells)
    found = list(notes)
    return (
        "\n".join([*parts, *(["", "## Notes", ""] if found else []), *(f"- {note}" for note in found)]) + "\n"
    )


def _cell(one: Mapping[str, Any] | None) -> str:
    if one is None or one["percent"] is None:
        return number(None)
    sd = "" if one["sd"] is None else f" ± {one['sd']:.1f}"
    star = "" if one["used"] == one["in_files"] else "*"
    return f"{one['percent']:.1f}{sd}{star} [{one['low']:.1f} – {one['high']:.1f}]"
