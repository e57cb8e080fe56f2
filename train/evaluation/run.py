"""One benchmark on one scorer: items read, scored, judged, and counted."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks.base import Benchmark
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Judged, Mean
from macco.train.evaluation.manifest import BenchmarkManifest, Places, sha256
from macco.train.evaluation.results import ItemScores, judged, table
from macco.train.evaluation.scorer import MISSING, UNCAPTIONED, Scorer, score_items
from macco.train.evaluation.statistics import interval


@dataclass(frozen=True)
class Outcome:
    """A benchmark's item rows and its part of the report."""

    items: pa.Table
    report: dict[str, Any]


class NoImagesError(UserError):
    """A benchmark whose files are there, and of whose images none is: the message says what to download."""


def run_benchmark(scorer: Scorer, benchmark: Benchmark, items: Sequence[Item] | None = None) -> Outcome:
    """Score a benchmark from its official files, or those items of them.

    Raises:
        MissingDataError: none of its files is there.
    """
    items = benchmark.items() if items is None else items
    rows = table(benchmark.name, _score(scorer, benchmark, items))
    manifest = benchmark.manifest
    pictures = [picture for item in items if item.complete for picture in item.pictures]
    absent = absent_images(manifest, benchmark.places, scorer, pictures)
    return outcome(
        manifest,
        rows,
        benchmark.figures,
        [*benchmark.absent, *absent, *_other_counts(benchmark, items), *_changed_files(benchmark)],
    )


def absent_images(
    manifest: BenchmarkManifest, places: Places, scorer: Scorer, pictures: Iterable[Picture]
) -> list[str]:
    """A line for each image collection of which files are not there: how many, and what to download."""
    return _absent(
        manifest, places, {picture.source: scorer.status(picture) == MISSING for picture in pictures}
    )


def require_images(manifest: BenchmarkManifest, places: Places, pictures: Iterable[Picture]) -> None:
    """Raises NoImagesError where not one image file is there, before anything is encoded.

    Raises UserError where no image is named: there is no item.
    """
    files = {picture.source for picture in pictures}
    if not files:
        raise UserError(f"{manifest.name}: its files hold no items: {manifest.get}")
    if not any(map(os.path.exists, files)):
        lines = _absent(manifest, places, dict.fromkeys(files, True))
        raise NoImagesError(f"{manifest.name}: no image is there: " + ("; ".join(lines) or manifest.get))


def _absent(manifest: BenchmarkManifest, places: Places, files: dict[str, bool]) -> list[str]:
    lines = []
    # A collection may lie inside another: the innermost first.
    for name in sorted(manifest.images, key=lambda name: -len(places.images(name).parts)):
        folder = places.images(name)
        inside = {path: files.pop(path) for path in list(files) if Path(path).is_relative_to(folder)}
        if lost := sum(inside.values()):
            get = places.packed(name) or places.collections[name].get or manifest.get
            lines.append(f"{lost} of {len(inside)} image files are not in {folder}: {get}")
    if lost := sum(files.values()):
        first = min(path for path, missing in files.items() if missing)
        lines.append(f"{lost} of {len(files)} other image files are not there, {first} first: {manifest.get}")
    return lines


def outcome(manifest: BenchmarkManifest, items: pa.Table, figures: Any, notes: Sequence[str]) -> Outcome:
    """The report of a benchmark whose items are scored; `figures` computes its means from Judged."""
    answers = judged(items)
    counts = _counts(manifest, items, answers)
    report = {
        "benchmark": manifest.name,
        "title": manifest.title,
        "notes": list(notes),
        "counts": counts,
        "statuses": dict(Counter(items["status"].to_pylist())),
        "figures": [_figure(manifest, name, mean) for name, mean in figures(answers).items()],
    }
    return Outcome(items, report)


def _score(scorer: Scorer, benchmark: Benchmark, items: Sequence[Item]) -> list[ItemScores]:
    rows: dict[int, ItemScores] = {}
    shapes: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(items):
        if not item.complete:
            rows[place] = ItemScores(item, UNCAPTIONED, np.empty(0, np.float32), None, {})
            continue
        shapes.setdefault((len(item.pictures), len(item.captions)), []).append(place)
    for places in shapes.values():
        chosen = [items[place] for place in places]
        scores, between, ok, statuses = score_items(scorer, chosen, benchmark.texts)
        right = benchmark.judge(scores, between)
        for i, place in enumerate(places):
            rows[place] = ItemScores(
                item=chosen[i],
                status=statuses[i],
                scores=scores[i].ravel(),
                between=None if between is None else between[i],
                right={name: bool(answers[i]) for name, answers in right.items()} if ok[i] else {},
            )
    return [rows[place] for place in range(len(items))]


def _counts(manifest: BenchmarkManifest, items: pa.Table, answers: Judged) -> list[dict[str, Any]]:
    tie = answers.right.get("tie", np.zeros(len(answers.ok), dtype=bool))
    names = dict.fromkeys([*manifest.files, *answers.subset])
    return [
        {
            "subset": name,
            "used": int((answers.rows(name) & answers.ok).sum()),
            "in_files": int(answers.rows(name).sum()),
            "expected": manifest.files[name].items if name in manifest.files else None,
            "ties": int((answers.rows(name) & answers.ok & tie).sum()),
        }
        for name in names
        if not (name in manifest.files and manifest.files[name].optional)
    ]


def _figure(manifest: BenchmarkManifest, name: str, mean: Mean) -> dict[str, Any]:
    low, high = interval(mean)
    return {
        "figure": name,
        "percent": _percent(mean.value),
        "low": _percent(low),
        "high": _percent(high),
        "units": mean.count,
        "published": manifest.published.get(name, {}),
    }


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * value


def _other_counts(benchmark: Benchmark, items: Sequence[Item]) -> list[str]:
    """A line for each official file that holds another number of items than was published."""
    found = Counter(item.subset for item in items)
    return [
        f"{subset}: {found[subset]:,} items, where {file.items:,} were published"
        for subset, file in benchmark.manifest.files.items()
        if subset in found and file.items is not None and found[subset] != file.items
    ]


def _changed_files(benchmark: Benchmark) -> list[str]:
    notes = []
    for subset, file in benchmark.manifest.files.items():
        path = benchmark.places.find(benchmark.manifest, subset)
        if file.sha256 is not None and path.is_file() and sha256(path) != file.sha256:
            notes.append(f"{path.name} ({subset}) is not the file of the described checksum")
    return notes
