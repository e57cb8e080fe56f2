"""CACR, IAIS and matching alone as the loop, evaluation and the report see them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.losses.matching import annealing
from macco.train.objectives.joint.batches import RegionBatch, RegionPairs
from macco.train.objectives.joint.features import prepared
from macco.train.objectives.joint.model import JointModel
from macco.train.objectives.joint.product import export_joint, read_joint, trained_joint
from macco.train.objectives.joint.regions import RegionPlan
from macco.train.objectives.joint.scorer import joint_scorer
from macco.train.objectives.joint.settings import JointConfig
from macco.train.objectives.noise import random_pairs
from macco.train.objectives.objective import Log, Objective, Opened, Precision, Scoring, Step


class JointObjective(Objective[JointModel, RegionBatch]):
    """Even steps (from 0) are image-anchored, odd ones text-anchored. Negatives come from this rank's batch."""

    @property
    def joint(self) -> JointConfig:
        """The objective's own settings."""
        joint: JointConfig = self.config.joint
        return joint

    @property
    def without_boxes(self) -> str:
        return "an image is one region, the whole of it" if self.joint.regions == "boxes" else ""

    def model(self, clip: nn.Module) -> JointModel:
        model = JointModel(clip, self.config.objective, self.joint)
        model.train()  # pretrained weights come in evaluation mode
        return model

    def recipe(
        self, model: JointModel, tokenizer: Any, data: DataConfig, device: torch.device, log: Log
    ) -> RegionPairs:
        """Features of a frozen tower are made on `device` first, where the store has not got them."""
        plan = self._regions(model)
        make = partial(
            RegionPairs,
            tokenize=Tokenize(tokenizer),
            image_size=model.image_size,
            negatives=self.joint.offline,
            masks=self.config.masks,
            regions=plan,
        )
        if self.joint.tower == "trained":
            return make()
        return make(
            features=prepared(Store.open(data.store).choose_boxes(data.detector), model, plan, device, log)
        )

    def _regions(self, model: JointModel) -> RegionPlan:
        return RegionPlan(self.joint.regions, self.joint.count, self.joint.box_score, model.image.grid)

    def random_batch(self, model: JointModel, size: int) -> RegionBatch:
        random, pairs = torch.Generator().manual_seed(0), random_pairs(model, size)
        tokens: Tensor = pairs["tokens"]
        count = (
            self.joint.count if self.joint.regions == "boxes" else model.image.grid[0] * model.image.grid[1]
        )
        corners = torch.rand(size, count, 2, 2, generator=random).sort(2).values.flatten(2)
        cached = self.joint.tower == "frozen"
        width = model.region_width()

        def noise(*shape: int) -> Tensor | None:
            return torch.randn(*shape, generator=random).half() if cached else None

        return RegionBatch(
            **pairs | ({"images": torch.empty(size, 0, dtype=torch.uint8)} if cached else {}),
            negatives=tokens[:, None].repeat(1, self.joint.offline, 1) if self.joint.offline else None,
            boxes=corners,
            regions=torch.ones(size, count, dtype=torch.bool),
            features=noise(size, count, width),
            pooled=noise(size, width),
        )

    def gradients(
        self, model: JointModel, batch: RegionBatch, step: Step, precision: Precision
    ) -> dict[str, Tensor]:
        """As the interface says; `micro_batch` counts anchors, each with all its negatives.

        The image tower, where it is trained, sees the whole batch at once.
        """
        anchored, tau = step.number % 2 == 0, self._tau(step)
        size = self.config.micro_batch or len(batch)
        batch = batch.to(next(model.parameters()).device)
        with precision():
            pairs, pooled = model.pairs(batch)
            negatives = model.negatives(batch, pooled, image_anchored=anchored)
        features = pairs.features
        leaf = replace(pairs, features=features.detach().requires_grad_(features.requires_grad))
        total: dict[str, Tensor] = {}
        for start in range(0, len(batch), size):
            rows = slice(start, min(start + size, len(batch)))
            with precision():
                losses = model.losses(leaf, negatives, rows, image_anchored=anchored, tau=tau)
            share = (rows.stop - rows.start) / len(batch)
            torch.autograd.backward(losses["loss"] * share)
            total = {name: total.get(name, 0) + share * loss.detach() for name, loss in losses.items()}
        if leaf.features.grad is not None:
            torch.autograd.backward(features, leaf.features.grad)
        return total

    def _tau(self, step: Step) -> float:
        """The factor of the attention loss at a step."""
        return annealing(step.number / step.total, self.joint.schedule)

    def losses(self, model: JointModel, batch: RegionBatch) -> dict[str, Tensor]:
        model.eval()
        try:
            return super().losses(model, batch)
        finally:
            model.train()

    def scalars(self, model: JointModel, step: Step) -> dict[str, float]:
        return {"tau": self._tau(step)}

    def write(self, run: Path, out: Path, format: str, weights: str, interpolate: float | None) -> None:
        if format != "open_clip" or interpolate is not None:
            raise UserError(f"{run} holds a joint encoder: it has one format, and no start to mix with")
        export_joint(run, out, weights)

    def scorer(self, run: Path, scoring: Scoring, weights: str = "") -> Opened:
        return joint_scorer(trained_joint(run, weights), scoring)

    @classmethod
    def open_product(cls, folder: Path, scoring: Scoring) -> Opened:
        return joint_scorer(read_joint(folder), scoring)


OBJECTIVE = JointObjective
