"""FSC-CLIP as the loop, evaluation and the report see it."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from macco.train.config import DataConfig
from macco.train.data.batch import Batch
from macco.train.data.tokens import Tokenize
from macco.train.objectives import accumulate
from macco.train.objectives.fsc.batches import HardPairs
from macco.train.objectives.fsc.model import Encodings, FscModel, rows_with_negatives
from macco.train.objectives.fsc.settings import FscConfig
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Log, Objective, Precision, Step


class FscObjective(Objective[FscModel, Batch]):
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

    def gradients(self, model: FscModel, batch: Batch, step: Step, precision: Precision) -> dict[str, Tensor]:
        size = self.config.micro_batch or len(batch)
        device = next(model.parameters()).device
        batches = [part.to(device) for part in ([batch] if size >= len(batch) else batch.split(size))]
        rows, ids = rows_with_negatives(batches), model.pair_ids(batches)

        def encode(part: Batch) -> tuple[Tensor, Encodings]:
            encodings = model.encode(part)
            return model.features(encodings), encodings

        def within(part: Batch, encodings: Encodings) -> dict[str, Tensor]:
            with torch.autocast(device.type, enabled=False):
                return model.hard(part, encodings, rows)

        return accumulate.backward(
            batches,
            encode=encode,
            across=lambda features: model.contrastive(features, ids),
            within=within,
            weighted=model.weighted,
            precision=precision,
        )

    def scalars(self, model: FscModel, step: Step) -> dict[str, float]:
        return {"logit_scale": float(model.clip.logit_scale.detach().exp())}


OBJECTIVE = FscObjective
