"""DeGLA as the loop, evaluation and the report see it."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.data.batch import Batch
from macco.train.data.recipe import Pairs
from macco.train.objectives.degla.model import DeglaModel
from macco.train.objectives.degla.settings import DeglaConfig
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Log
from macco.train.objectives.pairwise import PairObjective


class DeglaObjective(PairObjective[DeglaModel, Batch]):
    """Captions before their hard negatives, for images and for what a teacher makes of the caption."""

    @property
    def degla(self) -> DeglaConfig:
        """The objective's own settings."""
        degla: DeglaConfig = self.config.degla
        return degla

    def model(self, clip: nn.Module) -> DeglaModel:
        return DeglaModel(clip, self.degla)

    def recipe(
        self, model: DeglaModel, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> Pairs:
        return Pairs(
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            full_length=model.text.fixed_length,
            negatives=self.degla.negatives,
            masks=self.config.masks,
        )

    def random_batch(self, model: DeglaModel, size: int) -> Batch:
        batch = Batch(**random_pairs(model, size))
        return replace(batch, negatives=batch.tokens[:, None].repeat(1, self.degla.negatives, 1))


OBJECTIVE = DeglaObjective
