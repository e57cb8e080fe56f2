"""READ-CLIP as the loop, evaluation and the report see it."""

from typing import Any

import torch
from torch import nn

from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.objectives.noise import WORDS, random_pairs
from macco.train.objectives.objective import Log
from macco.train.objectives.pairwise import PairObjective
from macco.train.objectives.read.batches import SiblingBatch, SiblingPairs
from macco.train.objectives.read.decoder import Labels
from macco.train.objectives.read.model import ReadModel
from macco.train.objectives.read.settings import ReadConfig


class ReadObjective(PairObjective[ReadModel, SiblingBatch]):
    """Captions with swapped ones as wrong answers, near their paraphrases, and full enough to write another from."""

    @property
    def read(self) -> ReadConfig:
        """The objective's own settings."""
        read: ReadConfig = self.config.read
        return read

    def model(self, clip: nn.Module) -> ReadModel:
        return ReadModel(clip, self.read)

    def recipe(
        self, model: ReadModel, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> SiblingPairs:
        read, labels = self.read, None
        if read.reconstruction:
            labels = Labels(read.tokenizer or read.decoder, read.label_length)
        return SiblingPairs(
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            full_length=model.text.fixed_length,
            negatives=read.negatives,
            masks=self.config.masks,
            labels=labels,
            align=read.alignment > 0,
        )

    def random_batch(self, model: ReadModel, size: int) -> SiblingBatch:
        pairs, kinds = random_pairs(model, size), self.read.negatives
        tokens = pairs["tokens"]
        return SiblingBatch(
            **pairs,
            negatives=tokens[:, None].repeat(1, kinds, 1) if kinds else None,
            paraphrases=tokens,
            paraphrase_valid=torch.ones(size, dtype=torch.bool),
            labels=torch.arange(1, WORDS + 1).repeat(size, 1),
        )


OBJECTIVE = ReadObjective
