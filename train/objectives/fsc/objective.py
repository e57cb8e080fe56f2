"""FSC-CLIP as the loop, evaluation and the report see it."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.data.batch import Batch
from macco.train.objectives.fsc.batches import HardPairs
from macco.train.objectives.fsc.model import FscModel
from macco.train.objectives.fsc.settings import FscConfig
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Log
from macco.train.objectives.pairwise import PairObjective


class FscObjective(PairObjective[FscModel, Batch]):
    """CLIP's contrast, and the own caption before its hard negatives: by pooled features, by tokens and patches."""

    @property
    def fsc(self) -> FscConfig:
        """The objective's own settings."""
        fsc: FscConfig = self.config.fsc
        return fsc

    def model(self, clip: nn.Module) -> FscModel:
        return FscModel(clip, self.fsc)

    def recipe(
        self, model: FscModel, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> HardPairs:
        return HardPairs(
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            full_length=model.text.fixed_length,
            negatives=self.fsc.negatives,
            masks=self.config.masks,
            shuffle=self.fsc.shuffle,
        )

    def random_batch(self, model: FscModel, size: int) -> Batch:
        batch = Batch(**random_pairs(model, size))
        kinds = self.fsc.candidates
        return replace(batch, negatives=batch.tokens[:, None].repeat(1, kinds, 1)) if kinds else batch


OBJECTIVE = FscObjective
