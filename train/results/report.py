"""One page on a run: its curves, and a few reconstructions. No scripts, nothing to load."""

import base64
import io
import platform
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment
from PIL import Image

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.train.layers import dump
from macco.train.objectives.objective import Example, Pixels, load_objective
from macco.train.runs import checkpoint
from macco.train.runs.metrics import read
from macco.train.runs.weights import saved_config

EXAMPLES = 6
WIDTH, HEIGHT, PAD = 300, 110, 4  # of a curve, in SVG units
POINTS = 500  # of a curve at most: means over equal stretches
_TEMPLATE = "report.html"


def write_report(run: Path) -> None:
    """Write RUN/report.html from its metrics and its latest checkpoint."""
    config, rows, lost = saved_config(run), read(run), ""
    examples: list[Example] = []
    try:
        examples = load_objective(config).examples(run, EXAMPLES)
    except UserError as error:
        lost = str(error)
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    curves = (_curve(name, [(row["step"], row[name]) for row in rows if name in row]) for name in names)
    step = checkpoint.load(run, checkpoint.LATEST)["step"]
    facts = (
        f"{step} steps; {config.model.name}; PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    cut = next((row for row in reversed(rows) if "captions_cut" in row), None)
    if cut is not None:
        share = 100 * cut["captions_cut"]
        facts += f"; {share:.1f} % of the captions are cut, {cut['concepts_cut']:,.0f} concepts beyond"
    text = (files("macco.train.results") / _TEMPLATE).read_text("utf-8")
    page = (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(text)
        .render(
            name=run.resolve().name,
            facts=facts,
            curves=[curve for curve in curves if curve],
            lost=lost,
            examples=[_example(example) for example in examples],
            configuration=dump(config),
            width=WIDTH,
            height=HEIGHT,
        )
    )
    put_file(run / "report.html", page.encode())


def _curve(name: str, points: Sequence[tuple[float, float]]) -> dict[str, str] | None:
    """A curve in SVG units; a single point has no path."""
    points = _thin([point for point in points if abs(point[1]) < float("inf")])
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    left, low = min(steps), min(values)
    across, up = max(steps) - left or 1, max(values) - low or 1
    path = " ".join(
        f"{PAD + (step - left) / across * (WIDTH - 2 * PAD):.1f},"
        f"{HEIGHT - PAD - (value - low) / up * (HEIGHT - 2 * PAD):.1f}"
        for step, value in points
    )
    return {
        "name": name,
        "last": f"{values[-1]:.4g}",
        "path": path if len(points) > 1 else "",
        "range": f"{low:.4g} to {max(values):.4g}, steps {left:.0f} to {max(steps):.0f}",
    }


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _example(example: Example) -> dict[str, Any]:
    shown = {
        "the image": example.image, "with patches masked": example.masked, "as the model paints them": example.painted
    }  # fmt: skip
    pictures = [(alt, _png(pixels)) for alt, pixels in shown.items() if pixels is not None]
    return {"id": example.id, "words": example.words, "pictures": pictures}


def _png(pixels: Pixels) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()
