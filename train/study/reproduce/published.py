"""data_manifests/macco: the authors' tables, what their figures are means of, their checkpoints; hours and disk."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict

from macco.train.clip.load import architecture

FOLDER: Final = Path(__file__).parents[3] / "data_manifests" / "macco"
BACKBONES: Final = ("ViT-B-32", "ViT-B-16", "ViT-L-14")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(_Strict):
    """Four seeds of the authors', percent."""

    mean: float
    sd: float


class Column(_Strict):
    """A column of the authors' table: the mean of one figure of each benchmark."""

    of: dict[str, str]
    published: dict[str, float]
    seeds: Band | None = None


class Cost(_Strict):
    """Of training one model."""

    hours: float
    gb: float


class Work(_Strict):
    """Hours of each step."""

    models: dict[str, Cost]
    evaluate: float
    importing: float
    extract: float


class Tables(_Strict):
    """All published figures that a road is set beside."""

    source: str
    columns: dict[str, Column]
    work: Work


class Checkpoints(_Strict):
    """Where the authors' weights come from."""

    title: str
    licence: str
    homepage: str
    get: str
    folder: str
    notes: str


def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


@cache
def tables() -> Tables:
    return Tables.model_validate(_read("tables.yaml"))


@cache
def checkpoints() -> Checkpoints:
    return Checkpoints.model_validate(_read("checkpoints.yaml"))


def backbone(model: Path) -> str | None:
    """Which of the authors' backbones a written model is, by its image tower; None: none of them."""
    own = json.loads((model / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
    return next((name for name in BACKBONES if _tower(architecture(name)) == _tower(own)), None)


def _tower(config: dict[str, Any] | None) -> tuple[int, int] | None:
    return None if config is None else (config["vision_cfg"]["patch_size"], config["vision_cfg"]["width"])
