"""The CLIP that a run starts from."""

import json
import logging
from pathlib import Path
from typing import Any

import open_clip
import torch

from macco.train.clip.load import LoadedClip, load_clip, shipped
from macco.train.config import ModelConfig

MODELS = Path(__file__).parents[1] / "models"  # open_clip configurations of this project


def load_start(config: ModelConfig, seed: int) -> LoadedClip:
    """Build the model, the same each time: random weights are drawn from `seed`."""
    open_clip.add_model_config(MODELS)
    torch.manual_seed(seed)
    if not config.pretrained:
        logging.disable(logging.WARNING)  # open_clip warns that weights are random, as is asked for here
    try:
        loaded = load_clip(config.name, config.pretrained or None, config.activation or None)
    finally:
        logging.disable(logging.NOTSET)
    if config.checkpointing:
        loaded.model.set_grad_checkpointing()
    return loaded


def architecture(name: str) -> dict[str, Any] | None:
    """The open_clip configuration behind a model's name or folder; None where only its weights tell."""
    open_clip.add_model_config(MODELS)
    file = (shipped(name) or Path(name)) / "open_clip_config.json"
    if file.is_file():
        config: dict[str, Any] = json.loads(file.read_text())["model_cfg"]
        return config
    found: dict[str, Any] | None = open_clip.get_model_config(name)
    return found
