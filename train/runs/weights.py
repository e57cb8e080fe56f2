"""The settings and the trained CLIP of a run."""

from pathlib import Path
from typing import Any

import torch

from macco.pipeline.errors import UserError
from macco.train.clip.convert import State
from macco.train.clip.load import LoadedClip, load_start
from macco.train.clip.lora import adapt
from macco.train.config import LoraSettings, TrainConfig
from macco.train.layers import read_saved, resolve
from macco.train.runs import checkpoint

CONFIG = "config.yaml"
WEIGHTS = ("latest", "best", "ema")


def saved_config(run: Path) -> TrainConfig:
    """The configuration that a run was begun with."""
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} is no run: it has no {CONFIG}; make one with macco-train run")
    return resolve(read_saved(run / CONFIG))


def trained_clip(run: Path, weights: str = "", interpolate: float | None = None) -> LoadedClip:
    """The CLIP of a run, with its preprocessing and tokenizer.

    weights: latest, best or ema; empty: ema where the run keeps one, else latest. interpolate: share of the
    trained weights, the rest the start's; None: as the run was configured.
    """
    config = saved_config(run)
    if config.settings.product:
        raise UserError(f"{run} holds no plain CLIP: its objective is {config.objective}")
    weights = weights or ("ema" if config.ema else "latest")
    share = config.interpolate if interpolate is None else interpolate
    if weights not in WEIGHTS:
        raise UserError(f"--weights is {weights!r}: choose one of {', '.join(WEIGHTS)}")
    if weights == "ema" and not config.ema:
        raise UserError(f"{run} keeps no moving average: train with ema=0.999, or choose other weights")
    found = checkpoint.load(run, "best" if weights == "best" else "latest")
    if weights == "ema" and not found.get("ema"):
        raise UserError(f"the checkpoint of {run} has no moving average, which its config says it keeps")
    trained = (
        _with_prefix(found["ema"], "module.") if weights == "ema" else _with_prefix(found["model"], "clip.")
    )
    start = load_start(config.model, config.seed)
    state = start.model.state_dict()
    try:
        if config.lora.rank:
            trained = _merged(load_start(config.model, config.seed).model, trained, config.lora)
        if share < 1:
            trained = {name: torch.lerp(state[name], value, share) for name, value in trained.items()}
        start.model.load_state_dict(state | trained)
    except RuntimeError as error:
        raise UserError(f"{config.model.name} is no longer the model that {run} started from") from error
    return start


def _merged(clip: Any, trained: State, settings: LoraSettings) -> State:
    """The plain CLIP's weights of those of one with adapters."""
    tuner = adapt(clip, settings)
    clip.load_state_dict(trained)
    found: State = tuner.merge_and_unload().state_dict()
    return found


def _with_prefix(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
