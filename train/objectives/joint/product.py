"""What comes out of a joint run: a folder with the encoder, the CLIP whose regions it reads, and which regions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import VisualBertConfig, VisualBertModel

from macco.pipeline.errors import UserError
from macco.pipeline.folder import filling
from macco.train.clip.load import LoadedClip, architecture, load_clip, load_start
from macco.train.clip.write import write_clip
from macco.train.objectives.joint.encoder import JointEncoder
from macco.train.objectives.joint.model import JointModel
from macco.train.objectives.joint.settings import JointConfig
from macco.train.runs import checkpoint
from macco.train.runs.weights import saved_config

SETTINGS, WEIGHTS, CLIP = JointConfig.product, "joint.safetensors", "clip"


class Joint(NamedTuple):
    """A trained joint encoder with what belongs to it."""

    clip: LoadedClip
    encoder: JointEncoder
    config: JointConfig


def trained_joint(run: Path, weights: str = "") -> Joint:
    """The joint encoder of a run. weights: latest or best; empty: latest."""
    config = saved_config(run)
    if weights not in ("", "latest", "best"):
        raise UserError(f"--weights is {weights!r}: a joint run has latest and best")
    state = checkpoint.load(run, weights or checkpoint.LATEST)["model"]
    start = load_start(config.model, config.seed)
    model = JointModel(start.model, config.objective, config.joint)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{config.model.name} is no longer the model that {run} started from") from error
    return Joint(start, model.encoder, config.joint)


def export_joint(run: Path, out: Path, weights: str = "") -> None:
    """Write the joint encoder of a run as a folder, which `macco-train eval` opens."""
    joint = trained_joint(run, weights)
    clip, config = joint.clip, architecture(saved_config(run).model.name)
    state = {name: value.contiguous() for name, value in joint.encoder.state_dict().items()}
    settings = {"encoder": joint.encoder.bert.config.to_diff_dict(), "joint": asdict(joint.config)}
    with filling(out, SETTINGS) as folder:
        write_clip(clip.model, folder / CLIP, "open_clip", config, clip.tokenizer)
        save_file(state, folder / WEIGHTS)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2))


def read_joint(folder: Path) -> Joint:
    """Open what `export_joint` wrote.

    Raises:
        UserError: a file is not there, or damaged.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
        config = TypeAdapter(JointConfig).validate_python(settings["joint"])
        with torch.device("cpu"):
            encoder = JointEncoder(VisualBertModel(VisualBertConfig.from_dict(settings["encoder"])))
        encoder.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is no whole joint encoder ({reason}): export it anew") from error
    return Joint(load_clip(str(folder / CLIP)), encoder, config)
