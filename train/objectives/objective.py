"""The interface of an objective: all that the loop, evaluation, the report, bench and studies know of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.load import LoadedClip, architecture
from macco.train.clip.write import write_clip
from macco.train.config import OBJECTIVES, DataConfig, TrainConfig
from macco.train.data.batch import Batch
from macco.train.data.recipe import Recipe
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.scorer import Scorer
from macco.train.objectives.model import Model
from macco.train.runs.weights import trained_clip

Log = Callable[[str], None]
Precision = Callable[[], AbstractContextManager[object]]  # makes the autocast context of a forward pass
Pixels = NDArray[np.uint8]  # [S, S, 3]


@dataclass(frozen=True)
class Step:
    """Where a run stands."""

    number: int  # 0-based
    total: int
    alone: bool = False  # only what is new learns: the CLIP is as it is


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a model is to be opened for benchmarks."""

    device: str = "cpu"
    batch_size: int = 64  # images or captions encoded at once
    workers: int = 0  # processes that decode images
    store: str | None = None  # of the benchmarks' images, for models that read boxes


class Opened(NamedTuple):
    """A scorer, and the open_clip model in it."""

    scorer: Scorer
    clip: nn.Module


@dataclass(frozen=True)
class Example:
    """One pair as a run sees it, and what the model makes of it."""

    id: str
    words: list[tuple[str, list[str]]]  # each token, and where it was masked the likeliest ones
    image: Pixels
    masked: Pixels
    painted: Pixels | None  # None where the run reconstructs no pixels


def dual_encoder(loaded: LoadedClip, scoring: Scoring) -> Opened:
    """A plain CLIP as benchmarks see it."""
    encoder = DualEncoder(
        *loaded, device=scoring.device, batch_size=scoring.batch_size, workers=scoring.workers
    )
    return Opened(encoder, loaded.model)


M = TypeVar("M", bound=Model)
B = TypeVar("B", bound=Batch)


class Objective(ABC, Generic[M, B]):
    """An objective under one configuration. It holds no state: that is the model's, and the loop's."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @abstractmethod
    def model(self, clip: nn.Module) -> M:
        """The CLIP with what the objective adds, on the CPU. Draws from PyTorch's generator."""

    @property
    def without_boxes(self) -> str:
        """What becomes of an image without boxes; empty where batches do not depend on the store's boxes."""
        return ""

    def first(self) -> int:
        """Steps, before all others, in which only what is new learns."""
        return 0

    @abstractmethod
    def recipe(self, model: M, tokenizer: Any, data: DataConfig, device: torch.device, log: Log) -> Recipe:
        """What a sample of the store becomes."""

    @abstractmethod
    def random_batch(self, model: M, size: int) -> B:
        """A batch of noise of the sizes that real ones have, to measure with."""

    @abstractmethod
    def gradients(self, model: M, batch: B, step: Step, precision: Precision) -> dict[str, Tensor]:
        """Add this rank's gradients of a step to the parameters.

        batch: this rank's whole share, on the CPU. Returns its losses, detached: each unweighted, and "loss".
        """

    def losses(self, model: M, batch: B) -> dict[str, Tensor]:
        """The losses of a batch, for validation."""
        found: dict[str, Tensor] = model(batch)
        return found

    def scalars(self, model: M, step: Step) -> dict[str, float]:
        """What else is written of the step that has been made."""
        return {}

    def write(self, run: Path, out: Path, format: str, weights: str, interpolate: float | None) -> None:
        """Write the product of a run as a folder: the plain CLIP, unless the objective makes something else.

        weights: latest, best or ema; empty: as suits the run.
        """
        clip, _, tokenizer = trained_clip(run, weights, interpolate)
        write_clip(clip, out, format, architecture(self.config.model.name), tokenizer)

    def scorer(self, run: Path, scoring: Scoring, weights: str = "") -> Opened:
        """The weights of a run, straight from its checkpoint, as benchmarks see them; `weights` as in `write`."""
        return dual_encoder(trained_clip(run, weights), scoring)

    @classmethod
    def open_product(cls, folder: Path, scoring: Scoring) -> Opened:
        """What `write` wrote, where it is no plain CLIP: see ObjectiveSettings.product."""
        raise UserError(f"{folder} is a plain CLIP")

    def examples(self, run: Path, count: int) -> list[Example]:
        """A few samples of the training set as the latest checkpoint rebuilds them."""
        raise UserError(f"{self.config.objective} rebuilds nothing")


def objective_class(name: str) -> type[Objective[Any, Any]]:
    """The class behind an objective's name: its folder is imported now."""
    found: type[Objective[Any, Any]] = import_module(
        f"macco.train.objectives.{OBJECTIVES[name]}.objective"
    ).OBJECTIVE
    return found


def load_objective(config: TrainConfig) -> Objective[Any, Any]:
    """The objective of a configuration."""
    return objective_class(config.objective)(config)
