"""A model on every benchmark that is there, with both activations; each is scored once, whatever ends the process."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.train.clip.load import ACTIVATIONS, load_clip
from macco.train.evaluation.manifest import MissingDataError, Places, load_benchmark_manifest, sha256
from macco.train.evaluation.registry import expand, pictures_of, run
from macco.train.evaluation.report import ITEMS, write_report
from macco.train.objectives.objective import Log, Scoring, dual_encoder

WEIGHTS: Final = "open_clip_model.safetensors"
REPORT: Final = "report.json"


@dataclass
class Evaluated:
    """What became of a model's evaluation."""

    complete: bool = True  # False: it was asked to stop
    missing: list[str] = field(
        default_factory=list
    )  # benchmarks that are not there, each with what to download
    failed: list[str] = field(default_factory=list)


def evaluate(
    model: Path, out: Path, places: Places, scoring: Scoring, stop: Callable[[], bool], say: Log
) -> Evaluated:
    """Write out/ACTIVATION/BENCHMARK/{items.parquet,report.json,report.md} of every benchmark that is there.

    What was scored with the same weights on the same files and pictures is not scored again.
    """
    result, weights = Evaluated(), sha256(model / WEIGHTS)
    there: dict[str, str] = {}
    for name in expand(["all"]):
        try:
            there[name] = f"{weights[:16]}-{seen(name, places)}"
        except UserError as error:
            (result.missing if isinstance(error, MissingDataError) else result.failed).append(str(error))
    for activation in ACTIVATIONS:
        todo = [name for name in there if not _done(out / activation / name, there[name])]
        if not todo:
            continue
        scorer, _ = dual_encoder(load_clip(str(model), None, activation), scoring)
        about: dict[str, Any] = {"model": model.name, "activation": activation, "device": scoring.device}
        about["versions"] = {name: version(name) for name in ("macco", "torch", "open_clip_torch")}
        for name in todo:
            if stop():
                result.complete = False
                return result
            try:
                outcome = run(name, scorer, places)
            except UserError as error:
                result.failed.append(str(error))
                continue
            write_report(out / activation / name, about | {"data": there[name]}, [outcome], [])
            used, items = (sum(one[key] for one in outcome.report["counts"]) for key in ("used", "in_files"))
            say(f"{model.name}, {activation}: {name}, {used} of {items} items")
    return result


def seen(name: str, places: Places) -> str:
    """A name for what is there of a benchmark: its files, and which of its pictures. Raises as `pictures_of` does."""
    manifest = load_benchmark_manifest(name)
    pictures, _ = pictures_of(name, places)
    files = [places.find(manifest, subset) for subset in manifest.files]
    whole = hashlib.sha256()
    for path in files:
        whole.update(sha256(path).encode() if path.is_file() else b"-")
    for source in sorted({picture.source for picture in pictures}):
        whole.update(b"+" if Path(source).is_file() else b"-")
    return whole.hexdigest()[:16]


def _done(folder: Path, print_of: str) -> bool:
    """The report is written after the items."""
    try:
        report = json.loads((folder / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(report.get("data") == print_of and (folder / ITEMS).is_file())
