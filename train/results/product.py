"""What comes out of a run: a plain CLIP, of the weights that were asked for."""

from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import HFTokenizer
from torch import nn

from macco.pipeline.errors import UserError
from macco.train.clip.convert import State
from macco.train.clip.load import LoadedClip
from macco.train.clip.start import architecture, load_start
from macco.train.clip.write import export_hugging_face, export_open_clip
from macco.train.config import TrainConfig, read, resolve
from macco.train.runs import checkpoint

WEIGHTS = ("latest", "best", "ema")
FORMATS = ("open_clip", "hf")


def saved_config(run: Path) -> TrainConfig:
    """The configuration that a run was begun with."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run: it has no config.yaml; make one with macco-train run")
    return resolve(read(run / "config.yaml"))


def trained_clip(run: Path, weights: str = "", interpolate: float | None = None) -> LoadedClip:
    """The CLIP of a run, with its preprocessing and tokenizer.

    weights: latest, best or ema; empty: ema where the run keeps one, else latest. interpolate: share of the
    trained weights, the rest the start's; None: as the run was configured.
    """
    config = saved_config(run)
    if config.objective != "macco":
        raise UserError(f"{run} holds a joint encoder ({config.objective}), not a CLIP")
    weights = weights or ("ema" if config.ema else "latest")
    share = config.interpolate if interpolate is None else interpolate
    if weights not in WEIGHTS:
        raise UserError(f"--weights is {weights!r}: choose one of {', '.join(WEIGHTS)}")
    if weights == "ema" and not config.ema:
        raise UserError(f"{run} keeps no moving average: train with ema=0.999, or choose other weights")
    found = checkpoint.load(run, "best" if weights == "best" else "latest")
    trained = (
        _with_prefix(found["ema"], "module.") if weights == "ema" else _with_prefix(found["model"], "clip.")
    )
    start = load_start(config.model, config.seed)
    state = start.model.state_dict()
    try:
        if share < 1:
            trained = {name: torch.lerp(state[name], value, share) for name, value in trained.items()}
        start.model.load_state_dict(state | trained)
    except RuntimeError as error:
        raise UserError(f"{config.model.name} is no longer the model that {run} started from") from error
    return start


def _with_prefix(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def write(
    clip: nn.Module, out: Path, format: str, config: dict[str, Any] | None, tokenizer: Any = None
) -> None:
    """Write a CLIP in one of FORMATS, with its tokenizer where that is one of Hugging Face's."""
    if format not in FORMATS:
        raise UserError(f"--format is {format!r}: choose one of {', '.join(FORMATS)}")
    if format == "hf":
        export_hugging_face(clip, out)
    else:
        export_open_clip(clip, out, config)
    if isinstance(tokenizer, HFTokenizer):  # open_clip looks for it in the folder
        tokenizer.save_pretrained(str(out))


def export_run(
    run: Path, out: Path, format: str = "open_clip", weights: str = "", interpolate: float | None = None
) -> None:
    """Write the plain CLIP of a run as a folder; of a joint objective, its joint encoder."""
    if saved_config(run).objective != "macco":
        from macco.train.objectives.joint.product import export_joint

        if format != "open_clip" or interpolate is not None:
            raise UserError(f"{run} holds a joint encoder: it has one format, and no start to mix with")
        export_joint(run, out, weights)
        return
    clip, _, tokenizer = trained_clip(run, weights, interpolate)
    write(clip, out, format, architecture(saved_config(run).model.name), tokenizer)
