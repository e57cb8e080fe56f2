"""Benchmarks of a run as it goes: what they say of its latest checkpoint."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import torch

from macco.pipeline.errors import UserError
from macco.train.config import TrainConfig
from macco.train.evaluation.manifest import Places
from macco.train.evaluation.registry import expand
from macco.train.evaluation.registry import run as run_benchmark
from macco.train.objectives.objective import Log, Objective, Scoring
from macco.train.runs.metrics import Row

PREFIX: Final = "benchmarks/"  # of their names among the numbers of a run


class Benchmarks:
    """Those of `validation.benchmarks`. Figures are in percent: more is better."""

    def __init__(self, config: TrainConfig, log: Log) -> None:
        """Raises UserError for a benchmark that is not known."""
        v = config.validation
        self.names = expand([name.strip() for name in v.benchmarks.split(",")])
        self.places = Places(Path(v.data))
        self.wanted = v.best and PREFIX + v.best
        self.workers, self.log = config.data.workers, log

    def measure(self, objective: Objective[Any, Any], run: Path, device: torch.device) -> tuple[str, Row]:
        """The first figure of each benchmark and the wanted one; and the name of that by which "best" goes.

        Of the weights that `export --weights best` would write of this checkpoint: not of their moving average.

        Raises UserError where a benchmark's data is not there, or the wanted figure is not, or is undefined.
        """
        found: dict[str, float | None] = {}
        row: Row = {}
        # Opening a model draws its weights, and loaders draw seeds: not from the generators of the training.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            scorer, _ = objective.scorer(run, Scoring(device=str(device), workers=self.workers), "latest")
            for name in self.names:
                figures = run_benchmark(name, scorer, self.places).report["figures"]
                values = {f"{PREFIX}{name}/{one['figure']}": one["percent"] for one in figures}
                shown = (next(iter(values)), self.wanted)
                row |= {key: value for key, value in values.items() if key in shown and value is not None}
                found |= values
        best = self.wanted or next(iter(found))
        if best not in row:
            raise UserError(_no_figure(best, found))
        self.log("  ".join(f"{key} {value:.1f} %" for key, value in row.items()))
        return best, row


def _no_figure(best: str, found: dict[str, float | None]) -> str:
    name = best.removeprefix(PREFIX)
    if best in found:
        return (
            f"{name} is undefined, so no checkpoint is the best on it: a part of its items could not be used"
        )
    near = get_close_matches(best, found, n=3, cutoff=0) or [*found]
    return f"validation.best is {name!r}: did you mean {', '.join(key.removeprefix(PREFIX) for key in near)}?"
