"""One page on a run: its curves, and a few reconstructions. No scripts, nothing to load."""

import base64
import io
import platform
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
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

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; background: #fafafa; color: #222 }
figure { display: inline-block; vertical-align: top; margin: 0 1.5em 1.5em 0 }
figcaption { max-width: 420px } img { width: 140px; image-rendering: pixelated }
svg { background: #fff; border: 1px solid #ddd } mark { background: #ffe9a8 } small, pre { color: #777 }
"""


def write_report(run: Path) -> None:
    """Write RUN/report.html from its metrics and its latest checkpoint."""
    config = saved_config(run)
    rows = read(run)
    try:
        shown = "".join(_example(example) for example in load_objective(config).examples(run, EXAMPLES))
    except UserError as error:
        shown = f"<p>No reconstructions: {escape(str(error))}</p>"
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    curves = "".join(
        _curve(name, [(row["step"], row[name]) for row in rows if name in row]) for name in names
    )
    step = checkpoint.load(run, checkpoint.LATEST)["step"]
    facts = (
        f"{step} steps; {config.model.name}; PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    page = (
        f"<!doctype html><meta charset=utf-8><title>{escape(run.name)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(run.resolve().name)}</h1><p>{escape(facts)}</p>{curves}"
        "<h2>Reconstructions</h2><p>The pair as it is, with patches masked, and with them painted by the model from "
        "the caption; a patch's mean and contrast are the original's. Masked words are followed by the likeliest ones."
        f"</p>{shown}<h2>Configuration</h2><pre>{escape(dump(config))}</pre>"
    )
    put_file(run / "report.html", page.encode())


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    points = _thin([point for point in points if abs(point[1]) < float("inf")])
    if not points:
        return ""
    steps, values = zip(*points, strict=True)
    left, low = min(steps), min(values)
    across, up = max(steps) - left or 1, max(values) - low or 1
    path = " ".join(
        f"{PAD + (step - left) / across * (WIDTH - 2 * PAD):.1f},"
        f"{HEIGHT - PAD - (value - low) / up * (HEIGHT - 2 * PAD):.1f}"
        for step, value in points
    )
    drawn = f'<polyline points="{path}" fill="none" stroke="#4363d8" stroke-width="1.5"/>'
    if len(points) == 1:
        drawn = f'<circle cx="{WIDTH / 2}" cy="{HEIGHT / 2}" r="3" fill="#4363d8"/>'
    return (
        f'<figure><b>{escape(name)}</b> {values[-1]:.4g}<br><svg width="{WIDTH}" height="{HEIGHT}">{drawn}</svg>'
        f"<br><small>{low:.4g} to {max(values):.4g}, steps {left:.0f} to {max(steps):.0f}</small></figure>"
    )


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _example(example: Example) -> str:
    pictures = [example.image, example.masked, *([] if example.painted is None else [example.painted])]
    words = " ".join(
        f"<mark>{escape(word)}</mark> <small>({escape(', '.join(guesses))})</small>"
        if guesses
        else escape(word)
        for word, guesses in example.words
    )
    images = " ".join(_picture(pixels) for pixels in pictures)
    return f"<figure>{images}<figcaption>{words}<br><small>{escape(example.id)}</small></figcaption></figure>"


def _picture(pixels: Pixels) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
