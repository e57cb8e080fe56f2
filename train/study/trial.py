"""One run of a study: trained, evaluated, recorded."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from macco.train.clip.load import activation_of
from macco.train.clip.start import load_start
from macco.train.config import TrainConfig, read, require_same, resolve
from macco.train.distributed.processes import choose_device
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.manifest import Places
from macco.train.evaluation.registry import run as run_benchmark
from macco.train.evaluation.report import write_report
from macco.train.evaluation.scorer import Scorer
from macco.train.loop.run import CONFIG, train
from macco.train.results.scorers import run_scorer
from macco.train.runs import checkpoint
from macco.train.study.record import Record, read_record, training_seconds, write_record

BATCH: Final = 256  # images or captions encoded at once


@dataclass(frozen=True)
class Job:
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
            require_same(resolve(read(self.folder / CONFIG)), self.config, self.folder)
        return done


def work(job: Job, stop: Callable[[], bool]) -> bool:
    """Do a job, or go on with it; returns whether it is finished.

    Raises UserError as `train` and the benchmarks do.
    """
    device = str(choose_device(job.config.device))
    scorer: Scorer
    if job.trained:
        if not train(job.config, job.folder, stop, _quiet):
            return False
        scorer, clip = run_scorer(job.folder, device=device, batch_size=BATCH)
    else:
        loaded = load_start(job.config.model, job.config.seed)
        scorer, clip = DualEncoder(*loaded, device=device, batch_size=BATCH), loaded.model
    figures = _evaluate(job, scorer, activation_of(clip), device)
    state = checkpoint.load(job.folder, checkpoint.LATEST) if job.trained else {"step": 0}
    seconds = training_seconds(job.folder, job.config.data.batch_size) if job.trained else 0.0
    write_record(job.folder, Record(steps=state["step"], seconds=seconds, device=device, figures=figures))
    if not job.keep:
        shutil.rmtree(job.folder / checkpoint.FOLDER, ignore_errors=True)
    return True


def _evaluate(job: Job, scorer: Scorer, activation: str, device: str) -> dict[str, dict[str, float | None]]:
    places = Places(job.data)
    outcomes = [run_benchmark(name, scorer, places, job.templates) for name in job.benchmarks]
    about: dict[str, Any] = {
        "model": job.name,
        "activation": activation,
        "device": device,
        "versions": {name: version(name) for name in ("macco", "torch", "open_clip_torch")},
    }
    write_report(job.folder / "eval", about, outcomes, [])
    return {
        name: {one["figure"]: one["percent"] for one in outcome.report["figures"]}
        for name, outcome in zip(job.benchmarks, outcomes, strict=True)
    }


def _quiet(line: str) -> None:
    pass
