"""C2LIP as the loop, evaluation and the report see it."""

from typing import Any

import torch
from torch import nn

from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.data.texts import TextSet
from macco.train.objectives.c2lip.batches import PhraseBatch, PhrasePairs
from macco.train.objectives.c2lip.model import C2lipModel
from macco.train.objectives.c2lip.settings import C2lipConfig
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Log
from macco.train.objectives.pairwise import PairObjective

PHRASES, LENGTH = 3, 5  # of a random batch: phrases of a caption, tokens of one, as in COCO


class C2lipObjective(PairObjective[C2lipModel, PhraseBatch]):
    """Captions, their phrases, and patches that a phrase attends to: what belongs together, by a sigmoid each."""

    @property
    def c2lip(self) -> C2lipConfig:
        """The objective's own settings."""
        c2lip: C2lipConfig = self.config.c2lip
        return c2lip

    @property
    def without_boxes(self) -> str:
        return "a phrase attends to all patches of its image" if self.c2lip.boxes else ""

    def model(self, clip: nn.Module) -> C2lipModel:
        return C2lipModel(clip, self.c2lip)

    def recipe(
        self, model: C2lipModel, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> PhrasePairs:
        return PhrasePairs(
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            patch_size=model.image.patch[0],
            full_length=model.text.fixed_length,
            masks=self.config.masks,
            boxes=self.c2lip.boxes,
        )

    def random_batch(self, model: C2lipModel, size: int) -> PhraseBatch:
        pairs = random_pairs(model, size)
        tokens = pairs["tokens"].repeat_interleave(PHRASES, 0)
        if not model.text.fixed_length:
            tokens = torch.cat([tokens[:, : LENGTH - 1], torch.full_like(tokens[:, :1], tokens.max())], 1)
        which = torch.arange(len(tokens))
        grid = model.image.grid
        places = torch.ones(len(which), grid[0] * grid[1], dtype=torch.bool) if self.c2lip.boxes else None
        phrases = TextSet(tokens, which, which // PHRASES, which, places)
        return PhraseBatch(**pairs, phrases=phrases)


OBJECTIVE = C2lipObjective
