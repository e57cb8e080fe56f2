"""MACCO as the loop, evaluation and the report see it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.data.detector import own_boxes
from macco.train.data.loader import open_loader
from macco.train.objectives.macco.batches import MaskedBatch, MaskedPairs
from macco.train.objectives.macco.examples import reconstruct
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method
from macco.train.objectives.macco.step import backward
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Example, Log, Objective, Precision, Step
from macco.train.runs import checkpoint
from macco.train.runs.weights import trained_clip

TEXT_MASK, PATCH_MASK = 3, 0.3  # of a random batch: masked tokens, masked share of patches, as in COCO


class MaccoObjective(Objective[Macco, MaskedBatch]):
    """Masked concepts of one modality rebuilt from the other, beside a contrast: the paper's L."""

    @property
    def method(self) -> Method:
        """The objective's own settings."""
        method: Method = self.config.method
        return method

    @property
    def without_boxes(self) -> str:
        return "" if self.config.masks.random else "no patch will be masked"

    def model(self, clip: nn.Module) -> Macco:
        return Macco(clip, self.method)

    def first(self) -> int:
        return self.config.optimizer.predictors_first if self.method.mlm or self.method.mim else 0

    def recipe(
        self, model: Macco, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> MaskedPairs:
        return MaskedPairs(
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            patch_size=model.image.patch[0],
            full_length=model.text.fixed_length or self.method.reference,
            negatives=self.method.negatives,
            masks=self.config.masks,
        )

    def random_batch(self, model: Macco, size: int) -> MaskedBatch:
        pairs = random_pairs(model, size)
        tokens: Tensor = pairs["tokens"]
        text_mask = torch.zeros_like(tokens, dtype=torch.bool)
        text_mask[:, 1 : 1 + TEXT_MASK] = True
        patches = (size, model.image.grid[0] * model.image.grid[1])
        return MaskedBatch(
            **pairs,
            text_mask=text_mask,
            patch_mask=torch.rand(*patches, generator=torch.Generator().manual_seed(0)) < PATCH_MASK,
            negatives=tokens[:, None].repeat(1, self.method.negatives, 1) if self.method.negatives else None,
        )

    def gradients(
        self, model: Macco, batch: MaskedBatch, step: Step, precision: Precision
    ) -> dict[str, Tensor]:
        size = self.config.micro_batch or len(batch)
        parts = [batch] if size >= len(batch) else batch.split(size)
        device = next(model.parameters()).device
        return backward(model, [part.to(device) for part in parts], precision, alone=step.alone)

    def scalars(self, model: Macco, step: Step) -> dict[str, float]:
        return {"logit_scale": float(model.clip.logit_scale.detach().exp())}

    def examples(self, run: Path, count: int) -> list[Example]:
        start, cpu = trained_clip(run, checkpoint.LATEST, 1.0), torch.device("cpu")
        model = self.model(start.model)
        found = checkpoint.load(run, checkpoint.LATEST)["model"]
        try:
            new = {name: found[name] for name in model.state_dict() if not name.startswith("clip.")}
            model.load_state_dict(new, strict=False)
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint of {run} is of other settings than its config: {error}"
            ) from error
        data = replace(self.config.data, batch_size=count, workers=0, detector=own_boxes(self.config))
        recipe = replace(self.recipe(model, start.tokenizer, data, cpu, _quiet), negatives=0)
        loader = open_loader(data, recipe, seed=self.config.seed, log=_quiet)
        return reconstruct(model, next(iter(loader)).to(cpu), start.tokenizer)


def _quiet(line: str) -> None:
    pass


OBJECTIVE = MaccoObjective
