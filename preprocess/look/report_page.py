"""The figures of a store as one HTML page, which asks for nothing and runs no script."""

from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from macco.preprocess.look.plots import curve, histogram, places

_TEMPLATE: Final = "report.html"


def report_page(found: dict[str, Any]) -> str:
    """The page of what `report` found; whatever captions hold is text in it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:,}"
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    text = (files("macco.preprocess.look") / _TEMPLATE).read_text("utf-8")
    template = environment.from_string(text)
    return template.render(found, plots=_plots(found), matrix=_matrix(found))


def _plots(found: dict[str, Any]) -> dict[str, Markup]:
    boxes = found["boxes"]
    if not found["counts"]["boxes"]:
        return {}
    steps, shares = zip(*((each["threshold"], each["share"]) for each in boxes["grounded"]), strict=True)
    drawn = {
        "scores": histogram(boxes["scores"]["boxes"], "score"),
        "grounded": curve(steps, shares, "threshold", "share of objects with a box", found["threshold"]),
        "sides": histogram(boxes["sides"]["boxes"], "side of a square as large, of the image's"),
        "centres": places(boxes["centres"]["boxes"], "centres of boxes in the image"),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}  # made of numbers alone


def _matrix(found: dict[str, Any]) -> dict[str, Any]:
    """Objects by objects, and how many captions have both; the shares are of the largest."""
    pairs = found["together"]["objects"]
    names = sorted({row[end] for row in pairs for end in ("one", "other")})
    counts = {(row["one"], row["other"]): row["captions"] for row in pairs}
    most = max(counts.values(), default=1)
    rows = [
        (
            one,
            [(n := counts.get((min(one, other), max(one, other)), 0), round(n / most, 3)) for other in names],
        )
        for one in names
    ]
    return {"names": names, "rows": rows}
