"""A study's results: means and deviations over seeds, as plain values and as a page."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

from macco.train.evaluation.report import number, table
from macco.train.study.plan import Measure, StudyPlan
from macco.train.study.record import Record

Runs = Mapping[str, Mapping[int, Record]]  # by arm and seed
Spread = dict[str, Any]  # mean, sd (None for a single seed), n


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and sample deviation of the values that are there."""
    known = [value for value in values if value is not None]
    return {
        "mean": mean(known) if known else None,
        "sd": stdev(known) if len(known) > 1 else None,
        "n": len(known),
    }


def difference(runs: Mapping[int, Record], baseline: Mapping[int, Record], measure: Measure) -> Spread:
    """Of an arm from the baseline, seed by seed: what both have from the seed falls out."""
    pairs = [
        (measure.of(runs[seed].figures), measure.of(baseline[seed].figures))
        for seed in shared(runs, baseline)
    ]
    return spread([a - b for a, b in pairs if a is not None and b is not None])


def shared(runs: Mapping[int, Record], others: Mapping[int, Record]) -> list[int]:
    """The seeds that both have."""
    return sorted(runs.keys() & others.keys())


def summary(plan: StudyPlan, runs: Runs, start: Record) -> dict[str, Any]:
    """All that the page and the plot show, and every figure behind it."""
    baseline = runs.get(plan.baseline, {})
    arms = {}
    for name, arm in plan.arms.items():
        if not (own := runs.get(name)):
            continue
        seconds = [(own[seed].seconds, baseline[seed].seconds) for seed in shared(own, baseline)]
        arms[name] = {
            "title": arm.title,
            "group": arm.group,
            "columns": {
                column.title: spread([column.of(record.figures) for record in own.values()])
                | {"difference": difference(own, baseline, column)}
                for column in plan.columns
            },
            "seconds": spread([record.seconds for record in own.values()]),
            "time_ratio": spread([a / b for a, b in seconds if b]),
            "runs": {
                str(seed): {"steps": record.steps, "seconds": record.seconds, "device": record.device}
                | {"figures": record.figures}
                for seed, record in sorted(own.items())
            },
        }
    return {
        "title": plan.title,
        "baseline": plan.baseline,
        "columns": [column.title for column in plan.columns],
        "start": {
            "columns": {column.title: column.of(start.figures) for column in plan.columns},
            "figures": start.figures,
        },
        "arms": arms,
        "control": control(plan, runs),
    }


def control(plan: StudyPlan, runs: Runs) -> dict[str, Spread]:
    """What the positive control moves against the baseline."""
    arm, baseline = runs.get(plan.control.arm, {}), runs.get(plan.baseline, {})
    return {measure.title: difference(arm, baseline, measure) for measure in plan.control.figures}


def control_lines(plan: StudyPlan, moved: Mapping[str, Spread]) -> list[str]:
    """One line for each figure that the positive control is to move: it does by more than two standard errors."""
    names = plan.arms[plan.control.arm].title, plan.arms[plan.baseline].title
    lines = []
    for title, found in moved.items():
        by = f"{shown(found, signed=True)} points over {names[1]} ({found['n']} seeds)"
        if not found["n"]:
            lines.append(f"control: {title} not tried, for want of {names[0]} and {names[1]} on one seed")
        elif found["sd"] is None:
            lines.append(f"control: {names[0]} stands {by} in {title}: too few seeds for a verdict")
        elif found["mean"] > 2 * found["sd"] / sqrt(found["n"]):
            lines.append(f"control: {names[0]} moves {title} by {by}")
        else:
            lines.append(
                f"control: {names[0]} does NOT move {title}, {by}: it says nothing of any method here"
            )
    return lines


def shown(found: Spread, *, signed: bool = False, digits: int = 1) -> str:
    """mean ± deviation."""
    if found["mean"] is None:
        return number(None)
    value = f"{found['mean']:{'+' if signed else ''}.{digits}f}"
    return value if found["sd"] is None else f"{value} ± {found['sd']:.{digits}f}"


def markdown(plan: StudyPlan, results: Mapping[str, Any]) -> str:
    """The page: results, differences, what was tuned, what failed."""
    titles, arms = results["columns"], results["arms"]
    baseline = plan.arms[plan.baseline].title
    parts = [f"# {results['title']}", ""]
    parts += [f"- {key}: {value}" for key, value in results.get("settings", {}).items()]
    parts += [f"- {line}" for line in control_lines(plan, results["control"])]
    parts += [
        "",
        "Percent, mean ± sample deviation over seeds. Time: of the training steps alone, in times of "
        f"{baseline}'s.",
        "",
    ]
    rows = [["start", *(number(results["start"]["columns"][title]) for title in titles), "0", "0", "1"]]
    for arm in arms.values():
        steps = sorted({run["steps"] for run in arm["runs"].values()})
        cells = [shown(arm["columns"][title]) for title in titles]
        ratio = shown(arm["time_ratio"], digits=2)
        rows.append([arm["title"], *cells, "/".join(map(str, steps)), ratio, str(len(arm["runs"]))])
    parts += table(["", *titles, "steps", "time", "seeds"], rows)
    parts += [
        "",
        f"## Against {baseline}",
        "",
        "Points, mean ± deviation of the differences seed by seed.",
        "",
    ]
    differences = [
        [arm["title"], *(shown(arm["columns"][title]["difference"], signed=True) for title in titles)]
        for name, arm in arms.items()
        if name != results["baseline"]
    ]
    parts += table(["", *titles], differences)
    for family, found in results.get("tuned", {}).items():
        parts += ["", f"## Tuned: {family} (on {plan.arms[plan.tune.families[family].arm].title})", ""]
        measures = [measure.title for measure in (*plan.tune.best, *plan.tune.limits)]
        lines = [
            [
                _values(one["values"]) + (" **chosen**" if one["values"] == found["chosen"] else ""),
                *(number(one["figures"].get(title)) for title in measures),
                number(one["score"]),
                "failed"
                if one["below"] is None
                else "within"
                if not one["below"]
                else f"{one['below']:.1f} below",
            ]
            for one in found["candidates"]
        ]
        parts += table(["", *measures, "score", "limits"], lines)
    if results.get("failed"):
        parts += ["", "## Failed", "", *(f"- {name}: {error}" for name, error in results["failed"].items())]
    return "\n".join(parts) + "\n"


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items()) or "as it is"
