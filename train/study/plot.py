"""The plot: for each chosen column a panel, for each arm a dot (the mean) and a bar (one deviation each way)."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from macco.train.study.plan import StudyPlan

NAMES: Final = 230  # width left of the panels
PANEL, GAP = 190, 30
ROW, TOP, BOTTOM = 20, 44, 30
COLOURS: Final = ("#4363d8", "#e6194b", "#3cb44b", "#f58231", "#911eb4", "#008080", "#9a6324")  # of groups


def svg(plan: StudyPlan, results: Mapping[str, Any]) -> str:
    """An SVG page. Dashed line: the baseline; dotted line: the model that training starts from."""
    titles = [column.title for column in plan.columns if column.plot]
    arms = results["arms"]
    groups = list(dict.fromkeys(arm["group"] for arm in arms.values()))
    colours = {group: COLOURS[number % len(COLOURS)] for number, group in enumerate(groups)}
    width, height = NAMES + len(titles) * (PANEL + GAP), TOP + ROW * len(arms) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for row, arm in enumerate(arms.values()):
        parts.append(_text(NAMES - 12, _y(row) + 4, arm["title"], "end", colours[arm["group"]]))
    for number, title in enumerate(titles):
        parts += _panel(NAMES + number * (PANEL + GAP), title, results, colours)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(left: float, title: str, results: Mapping[str, Any], colours: Mapping[str, str]) -> list[str]:
    arms = results["arms"]
    found = {name: arm["columns"][title] for name, arm in arms.items()}
    found = {name: one for name, one in found.items() if one["mean"] is not None}
    start = results["start"]["columns"][title]
    ends = [one["mean"] + side * (one["sd"] or 0) for one in found.values() for side in (-1, 1)]
    ends += [] if start is None else [start]
    parts = [_text(left + PANEL / 2, TOP - 22, title, "middle", "#222")]
    if not ends:
        return parts
    low, high = float(min(ends)), float(max(ends))
    low, high = (low - 1, high + 1) if high - low < 1 else (low, high)
    bottom = _y(len(arms)) - ROW / 2

    def x(value: float) -> float:
        return left + 6 + (value - low) / (high - low) * (PANEL - 12)

    parts.append(
        f'<rect x="{left}" y="{TOP - 12}" width="{PANEL}" height="{bottom - TOP + 12:g}" fill="#f6f6f6"/>'
    )
    for value, anchor in ((low, "start"), (high, "end")):
        parts.append(_text(x(value), bottom + 16, f"{value:.1f}", anchor, "#777"))
    lines = {"1 3": start, "5 3": found.get(results["baseline"], {}).get("mean")}
    for dashes, value in lines.items():
        if value is not None:
            parts.append(
                f'<path d="M{x(value):.1f} {TOP - 12}V{bottom:g}" stroke="#777" stroke-dasharray="{dashes}"/>'
            )
    for row, (name, arm) in enumerate(arms.items()):
        if (one := found.get(name)) is None:
            continue
        colour, y = colours[arm["group"]], _y(row)
        if one["sd"]:
            a, b = (x(one["mean"] + side * one["sd"]) for side in (-1, 1))
            parts.append(f'<path d="M{a:.1f} {y:g}H{b:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x(one["mean"]):.1f}" cy="{y:g}" r="4" fill="{colour}"/>')
    return parts


def _y(row: int) -> float:
    return TOP + ROW * row + ROW / 2


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
