"""One run of a study: trained, evaluated, recorded."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from macco.pipeline.devices import choose_device
from macco.train.clip.load import activation_of, load_start
from macco.train.config import TrainConfig
from macco.train.evaluation.manifest import Places
from macco.train.evaluation.registry import run as run_benchmark
from macco.train.evaluation.report import write_report
from macco.train.evaluation.scorer import Scorer
from macco.train.layers import require_same
from macco.train.loop.run import train
from macco.train.objectives.objective import Scoring, dual_encoder
from macco.train.results.scorers import run_scorer
from macco.train.runs import checkpoint
from macco.train.runs.weights import saved_config
from macco.train.study.record import Record, read_record, training_seconds, write_record

BATCH: Final = 256  # images or captions encoded at once


@dataclass(frozen=True)
class Trial:
    """One run and its evaluation."""

    name: str
    folder: Path
    config: TrainConfig
    benchmarks: list[str]
    data: Path  # of the benchmarks
    templates: str
    trained: bool = True  # False: the model that training starts from is evaluated
    keep: bool = False  # the checkpoints

    def finished(self) -> bool:
        """Whether all is done. Raises UserError where the folder was begun with other settings."""
        done = read_record(self.folder) is not None
        if self.trained and (done or checkpoint.path(self.folder, checkpoint.LATEST).is_file()):
            require_same(saved_config(self.folder), self.config, self.folder)
        return done


def run_trial(trial: Trial, stop: Callable[[], bool]) -> bool:
    """Do a trial, or go on with it; returns whether it is finished.

    Raises UserError as `train` and the benchmarks do.
    """
    device = str(choose_device(trial.config.device))
    scoring = Scoring(device=device, batch_size=BATCH)
    if trial.trained:
        if not train(trial.config, trial.folder, stop, _quiet):
            return False
        scorer, clip = run_scorer(trial.folder, scoring)
    else:
        scorer, clip = dual_encoder(load_start(trial.config.model, trial.config.seed), scoring)
    figures = _evaluate(trial, scorer, activation_of(clip), device)
    state = checkpoint.load(trial.folder, checkpoint.LATEST) if trial.trained else {"step": 0}
    seconds = training_seconds(trial.folder, trial.config.data.batch_size) if trial.trained else 0.0
    write_record(trial.folder, Record(steps=state["step"], seconds=seconds, device=device, figures=figures))
    if not trial.keep:
        shutil.rmtree(trial.folder / checkpoint.FOLDER, ignore_errors=True)
    return True


def _evaluate(
    trial: Trial, scorer: Scorer, activation: str, device: str
) -> dict[str, dict[str, float | None]]:
    places = Places(trial.data)
    outcomes = [run_benchmark(name, scorer, places, trial.templates) for name in trial.benchmarks]
    about: dict[str, Any] = {
        "model": trial.name,
        "activation": activation,
        "device": device,
        "versions": {name: version(name) for name in ("macco", "torch", "open_clip_torch")},
    }
    write_report(trial.folder / "eval", about, outcomes, [])
    return {
        name: {one["figure"]: one["percent"] for one in outcome.report["figures"]}
        for name, outcome in zip(trial.benchmarks, outcomes, strict=True)
    }


def _quiet(line: str) -> None:
    pass
