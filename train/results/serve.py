"""The pages of some runs and evaluations: curves side by side, reconstructions, two evaluations item by item; and of a
store as training sees it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from macco.pipeline.errors import UserError
from macco.pipeline.page.app import application, own, store_app
from macco.pipeline.page.gallery import Gallery
from macco.pipeline.page.html import linked, static
from macco.pipeline.store import Store
from macco.train.evaluation.report import ITEMS as ITEM_FILE
from macco.train.evaluation.results import read_items
from macco.train.objectives.objective import load_objective
from macco.train.results.look import Look, over
from macco.train.results.seen import Seen, png
from macco.train.runs.metrics import read
from macco.train.runs.weights import CONFIG

POINTS: Final = 400  # of a curve
EXAMPLES: Final = 6
ITEMS: Final = 50  # in one answer
_SCRIPTS: Final = ("figure.js", "runs.js")


class Runs:
    """Answers about folders of runs, and of evaluations, by their number in the order given."""

    def __init__(self, folders: Sequence[Path], given: Mapping[str, Any] | None = None) -> None:
        """given: a layer of settings over those of each run, of its data and masks."""
        self._given = given or {}
        self.runs = [folder for folder in folders if (folder / CONFIG).is_file()]
        self.evaluations = [folder for folder in folders if (folder / ITEM_FILE).is_file()]
        if missing := [folder for folder in folders if folder not in (*self.runs, *self.evaluations)]:
            raise UserError(f"{missing[0]} is neither a run nor what macco-train eval wrote")
        self.examples = cache(self._examples)

    def overview(self) -> dict[str, Any]:
        return {
            "runs": [{"name": str(run), "curves": _curves(run)} for run in self.runs],
            "evaluations": [str(one) for one in self.evaluations],
        }

    def _examples(self, number: int) -> list[dict[str, Any]]:
        run = _at(self.runs, number)
        config = over(run, self._given)
        if not Store(config.data.store).exists("store.json"):
            raise UserError(
                f"{run} was trained on {config.data.store}, which is not here: give --store STORE"
            )
        found = load_objective(config).examples(run, EXAMPLES)
        pictures = [[one.image, one.masked] + ([] if one.painted is None else [one.painted]) for one in found]
        return [
            {
                "id": one.id,
                "words": one.words,
                "pictures": [png(torch.from_numpy(p).permute(2, 0, 1)) for p in some],
            }
            for one, some in zip(found, pictures, strict=True)
        ]

    def items(self, a: int, b: int, criterion: str, differ: bool, at: int) -> dict[str, Any]:
        """The items that both evaluations have, with both scores and answers; `differ`: where one alone is right."""
        if a == b:
            few = len(self.evaluations) < 2
            raise UserError(
                "one evaluation has nothing to be compared with: " + ("give two" if few else "choose two")
            )
        names = ("benchmark", "subset", "item")
        tables = [read_items(_at(self.evaluations, number) / ITEM_FILE).to_pylist() for number in (a, b)]
        one, other = ({tuple(row[name] for name in names): row for row in table} for table in tables)
        criteria = sorted({name for row in one.values() for name, _ in row["answers"] or ()})
        wanted = criterion or (criteria[0] if criteria else "")
        counts, rows = {"both": 0, "first": 0, "second": 0, "neither": 0}, []
        for key in [key for key in one if key in other]:
            first, second = (dict(side[key]["answers"] or ()).get(wanted) for side in (one, other))
            if first is None or second is None:
                continue
            counts[
                "both" if first and second else "first" if first else "second" if second else "neither"
            ] += 1
            if not differ or first != second:
                row = {name: one[key][name] for name in (*names, "category", "images", "captions")}
                rows.append(
                    row | {"right": [first, second], "scores": [one[key]["scores"], other[key]["scores"]]}
                )
        found = {"criteria": criteria, "criterion": wanted, "counts": counts, "total": len(rows)}
        return found | {"rows": rows[at : at + ITEMS]}


def runs_app(look: Look, gallery: Gallery | None, token: str | None) -> Starlette:
    """The page of runs; with a gallery the store's page is at /, and the runs' at /runs."""
    runs = Runs(look.folders, look.given)

    def number(request: Request, name: str) -> int:
        try:
            return int(request.query_params.get(name, 0))
        except ValueError as error:
            raise UserError(f"{name} is a whole number") from error

    def items(request: Request) -> Any:
        asked = request.query_params
        a, b, at = (number(request, name) for name in ("a", "b", "at"))
        return runs.items(a, b, asked.get("criterion", ""), "differ" in asked, at)

    def page(request: Request) -> Response:
        return HTMLResponse(linked("runs.html", _SCRIPTS))

    def answer(make: Callable[[Request], Any]) -> Callable[[Request], Response]:
        return lambda request: JSONResponse(make(request))

    routes = [
        Route("/runs", page),
        own("runs.js", static("runs.js")),
        Route("/api/runs", answer(lambda request: runs.overview())),
        Route("/api/examples", answer(lambda request: runs.examples(number(request, "run")))),
        Route("/api/items", answer(items)),
    ]
    if gallery is None:
        beside = [Route("/", page), *(own(name, static(name)) for name in ("style.css", "figure.js"))]
        return application([*routes, *beside], token)
    seen = Seen(look.config, gallery.store)
    sample = answer(lambda request: seen(request.query_params.get("sample", ""), number(request, "seed")))
    routes.append(Route("/api/seen", sample))
    about = {"runs": bool(look.folders), "seen": look.by}
    threshold = look.config.masks.box_score
    return store_app(gallery, threshold=threshold, token=token, more=routes, about=about)


def _curves(run: Path) -> dict[str, list[tuple[float, float]]]:
    """The numbers of a run by name, as points (step, value); means over equal stretches where there are many."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in read(run):
        for name, value in row.items():
            if name != "step" and abs(value) < float("inf"):
                found.setdefault(name, []).append((row["step"], value))
    return {name: _thin(points) for name, points in found.items()}


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _at(folders: Sequence[Path], number: int) -> Path:
    if not 0 <= number < len(folders):
        raise UserError(f"there is no number {number} of {len(folders)}")
    return folders[number]
