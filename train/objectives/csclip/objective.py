"""CS-CLIP as the loop, evaluation and the report see it."""

from typing import Any

import torch
from torch import nn

from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.objectives.csclip.batches import UnitBatch, UnitPairs
from macco.train.objectives.csclip.model import CsclipModel
from macco.train.objectives.csclip.settings import CsclipConfig
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Log
from macco.train.objectives.pairwise import PairObjective

LENGTH = 8  # of a random batch: tokens of a unit, as in COCO


class CsclipObjective(PairObjective[CsclipModel, UnitBatch]):
    """Captions before their foils, and entities and relations of them before theirs."""

    @property
    def csclip(self) -> CsclipConfig:
        """The objective's own settings."""
        csclip: CsclipConfig = self.config.csclip
        return csclip

    def model(self, clip: nn.Module) -> CsclipModel:
        return CsclipModel(clip, self.csclip)

    def recipe(
        self, model: CsclipModel, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> UnitPairs:
        return UnitPairs(
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            full_length=model.text.fixed_length,
            negatives=self.csclip.negatives,
            masks=self.config.masks,
            slots=self.csclip.slots if self.csclip.units else 0,
        )

    def random_batch(self, model: CsclipModel, size: int) -> UnitBatch:
        pairs = random_pairs(model, size)
        slots = self.csclip.slots if self.csclip.units else 0
        tokens = pairs["tokens"]
        if not model.text.fixed_length:
            tokens = torch.cat([tokens[:, : LENGTH - 1], torch.full_like(tokens[:, :1], tokens.max())], 1)
        units = tokens[:, None].repeat(1, slots, 1)
        there = torch.ones(size, slots, dtype=torch.bool)
        return UnitBatch(
            **pairs,
            negatives=pairs["tokens"][:, None],
            units=units,
            unit_foils=units,
            unit_valid=there,
            foil_valid=there,
            unit_ids=torch.arange(size * slots).view(size, slots),
            entities=torch.full((size,), 3),
        )


OBJECTIVE = CsclipObjective
