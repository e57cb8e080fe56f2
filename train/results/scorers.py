"""A model by its name, folder or run, as the scorer that benchmarks ask."""

from pathlib import Path

from macco.pipeline.errors import UserError
from macco.train.clip.load import load_clip
from macco.train.config import OBJECTIVES, TrainConfig, objective_settings
from macco.train.objectives.objective import Opened, Scoring, dual_encoder, load_objective, objective_class
from macco.train.runs.weights import CONFIG, saved_config


def open_scorer(
    model: str, pretrained: str | None = None, activation: str | None = None, scoring: Scoring | None = None
) -> Opened:
    """Open what `load_clip` opens, or another product of an objective, in a folder of its own or in its run.

    Raises:
        UserError: there is no such model, or what it reads is not there.
    """
    path, scoring = Path(model), scoring or Scoring()
    found = find_product(path)
    run: TrainConfig | None = saved_config(path) if (path / CONFIG).is_file() else None
    special = found is not None or (run is not None and run.settings.product)
    if special and (pretrained or activation):
        raise UserError(f"{model} comes with weights of its own: leave --pretrained and --activation out")
    if found is not None:
        folder, objective = found
        return objective_class(objective).open_product(folder, scoring)
    if special:
        return run_scorer(path, scoring)
    if scoring.store is not None:
        raise UserError(f"--store is for models that read boxes: {model} reads none")
    return dual_encoder(load_clip(model, pretrained, activation), scoring)


def run_scorer(run: Path, scoring: Scoring | None = None) -> Opened:
    """The latest weights of a run, whatever its objective, straight from its checkpoint."""
    return load_objective(saved_config(run)).scorer(run, scoring or Scoring())


def find_product(path: Path) -> tuple[Path, str] | None:
    """The folder that holds a product which is no plain CLIP, and an objective that wrote such.

    It is the path itself, or the model of a finished run.
    """
    for objective in OBJECTIVES:
        product = objective_settings(objective).product
        for folder in (path, path / "model") if product else ():
            if (folder / product).is_file():
                return folder, objective
    return None
