"""A step of a joint objective."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from macco.train.data.batch import Batch
from macco.train.loop.state import Training
from macco.train.losses.matching import annealing
from macco.train.objectives.joint.model import JointModel


class JointTraining(Training):
    """Even steps (from 0) are image-anchored, odd ones text-anchored. Negatives come from this rank's batch."""

    model: JointModel

    def build(self, clip: nn.Module) -> JointModel:
        model = JointModel(clip, self.config.objective, self.config.joint)
        model.train()  # pretrained weights come in evaluation mode
        return model

    def tau(self) -> float:
        """The factor of the attention loss at this step."""
        return annealing(self.step / self.total, self.config.joint.schedule)

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """As Training's; `micro_batch` counts anchors, each with all its negatives.

        The image tower, where it is trained, sees the whole batch at once.
        """
        model, anchored = self.model, self.step % 2 == 0
        size = self.config.micro_batch or len(batch)
        batch = batch.to(self.device)
        with self.precision():
            pairs, pooled = model.pairs(batch)
            wrong = model.wrong(batch, pooled, image_anchored=anchored)
        features = pairs.features
        leaf = replace(pairs, features=features.detach().requires_grad_(features.requires_grad))
        total: dict[str, Tensor] = {}
        for start in range(0, len(batch), size):
            rows = slice(start, min(start + size, len(batch)))
            with self.precision():
                losses = model.losses(leaf, wrong, rows, image_anchored=anchored, tau=self.tau())
            share = (rows.stop - rows.start) / len(batch)
            torch.autograd.backward(losses["loss"] * share)
            total = {name: total.get(name, 0) + share * loss.detach() for name, loss in losses.items()}
        if leaf.features.grad is not None:
            torch.autograd.backward(features, leaf.features.grad)
        return total

    def scalars(self) -> dict[str, float]:
        return {"tau": annealing((self.step - 1) / self.total, self.config.joint.schedule)}

    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        self.model.eval()
        try:
            return super().validate(batches)
        finally:
            self.model.train()
