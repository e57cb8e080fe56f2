"""Plots as SVG that stands in a page: they take its colours, light or dark, and their words stay text."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

# Colours that the page's own take the place of.
_INK, _ACCENT = "#010203", "#040506"
_COLOURS: Final = {_INK: "currentColor", _ACCENT: "var(--accent)"}
_SETTINGS: Final[Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "macco", "font.size": 10, "font.family": "sans-serif", "text.color": _INK,
    "axes.edgecolor": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False,
}  # fmt: skip


def histogram(counts: Sequence[int], label: str, *, top: float = 1.0) -> str:
    """Bars of counts over [0, top]."""
    with _figure(label) as (axes, made):
        edges = np.linspace(0, top, len(counts) + 1)
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=_ACCENT)
        axes.set_xlim(0, top)
        axes.set_xlabel(label)
        axes.set_ylabel("boxes")
        axes.yaxis.get_major_locator().set_params(integer=True)
    return made[0]


def curve(x: Sequence[float], y: Sequence[float], label: str, beside: str, at: float) -> str:
    """A share over a threshold, with a line where it stands now."""
    with _figure(f"{beside} by {label}") as (axes, made):
        axes.plot(x, y, color=_ACCENT, linewidth=2)
        axes.axvline(at, color=_INK, linewidth=1, linestyle=":")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(label)
        axes.set_ylabel(beside)
    return made[0]


def places(counts: Sequence[Sequence[int]], label: str) -> str:
    """A map of an image: the more, the darker."""
    from matplotlib.patches import Rectangle

    most, cells = max(max(row) for row in counts) or 1, len(counts)
    with _figure(label) as (axes, made):
        for row, some in enumerate(counts):
            for column, count in enumerate(some):
                if count:
                    square = Rectangle(
                        (column, row), 1, 1, facecolor=_ACCENT, alpha=count / most, edgecolor="none"
                    )
                    axes.add_patch(square)
        axes.set(xlim=(0, cells), ylim=(cells, 0), aspect="equal", xticks=[], yticks=[])
        axes.set_xlabel(label)
        for spine in axes.spines.values():
            spine.set_visible(True)
    return made[0]


@contextmanager
def _figure(label: str) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG afterwards."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    made: list[str] = []
    with rc_context(_SETTINGS), warnings.catch_warnings(action="ignore"):
        figure = Figure(figsize=(5, 3), layout="constrained")
        yield figure.add_subplot(), made
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, name in _COLOURS.items():
        text = text.replace(colour, name)
    made.append(re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', text, count=1))
