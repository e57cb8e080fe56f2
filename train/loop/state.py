"""The state of a run, and one step of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from macco.pipeline.errors import UserError
from macco.train.clip.lora import adapt
from macco.train.config import TrainConfig
from macco.train.data.batch import Batch
from macco.train.distributed import ranks
from macco.train.loop.optimizer import factor, parameter_groups
from macco.train.objectives.model import Model
from macco.train.objectives.objective import Objective, Step
from macco.train.runs import checkpoint


def build_model(objective: Objective[Any, Any], clip: nn.Module, device: torch.device) -> Any:
    """The model before the first step, the same on all ranks."""
    config = objective.config
    torch.manual_seed(config.seed)
    model = objective.model(clip)
    with_bias = getattr(clip, "logit_bias", None) is not None
    if not model.sigmoid and (config.contrast == "sigmoid" or (config.contrast == "auto" and with_bias)):
        model.use_sigmoid()
    model.learn_last(config.optimizer.image_blocks, model.image)
    model.learn_last(config.optimizer.text_blocks, model.text)
    if config.model.predictors:
        take_predictors(model, Path(config.model.predictors))
    if config.distill.weight:
        model.teach(config.distill)
    if config.lora.rank:
        adapt(model.clip, config.lora)
    model.to(device)
    ranks.broadcast(model)
    return model


def take_predictors(model: Model, run: Path) -> None:
    """Start from what a run trained beside the CLIP: mask tokens and predictors, as many as the model has, or
    the joint encoder.

    Raises UserError where the run has none, or of other sizes.
    """
    new = model.new_state()
    found = checkpoint.load(run, checkpoint.LATEST)["model"]
    parts = {name.partition(".")[0] for name in new}
    theirs = {name: value for name, value in found.items() if name.partition(".")[0] in parts}
    if missing := sorted(parts - {name.partition(".")[0] for name in theirs}):
        raise UserError(f"{run} has no {missing[0]}: train it with all losses of this objective")
    try:
        if theirs.keys() != new:  # another depth
            raise RuntimeError("other layers")
        model.load_state_dict(theirs, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"the predictors of {run} have other sizes: set method.*_depth and heads, or joint.*, as there"
        ) from error


class State:
    """All that a step changes, and how."""

    def __init__(self, objective: Objective[Any, Any], model: Model, steps: int) -> None:
        """steps: of all that learns; those in which only what is new learns come before them."""
        self.objective, self.model = objective, model
        config = self.config
        self.device = next(model.parameters()).device
        o = config.optimizer
        groups = parameter_groups(
            model,
            lr=o.lr,
            predictor_lr=o.predictor_lr,
            decay=o.decay,
            predictor_decay=o.predictor_decay,
            scale_lr=o.scale_lr,
            scale_decay=o.scale_decay,
        )
        self.optimizer = torch.optim.AdamW(groups, betas=(o.beta1, o.beta2), eps=o.eps, fused=True)
        self.base_rates = [group["lr"] for group in groups]
        self.ema = None
        if config.ema:
            average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.ema = AveragedModel(model.clip, multi_avg_fn=average)
        if config.compile:
            model.compile_blocks()
        self.step = 0
        self.first = objective.first()
        self.total = self.first + steps

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run."""
        return self.objective.config

    def precision(self) -> torch.autocast:
        """The context of a forward pass."""
        wanted = self.config.precision
        on = wanted == "bf16" or (wanted == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def place(self) -> Step:
        """The step that comes next."""
        return Step(self.step, self.total, alone=self.step < self.first)

    def update(self, batch: Batch, *, norms: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step. Returns this rank's losses and, where asked for, the norms of the whole batch's gradients."""
        losses = self.gradients(batch)
        ranks.average_gradients(self.model.parameters())
        lengths = self._norms() if norms else {}
        if self.config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * self._share(0 if group["name"] == "new" else self.first)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.after_step()
        self.model.follow()
        if self.ema is not None:
            self.ema.update_parameters(self.model.clip)
        self.step += 1
        return losses, lengths

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Add this rank's gradients of the next step to the parameters; returns its losses."""
        return self.objective.gradients(self.model, batch, self.place(), self.precision)

    def _share(self, begin: int) -> float:
        """The share of its base rate that a group which begins to learn at step `begin` has now."""
        if self.step < begin:
            return 0.0
        o, total = self.config.optimizer, self.total - begin
        warmup = round(o.warmup_share * total) if o.warmup_share else o.warmup
        return factor(self.step - begin, warmup, total, o.warmup_from, o.floor)

    def scalars(self) -> dict[str, float]:
        """What else is written of the last step."""
        return self.objective.scalars(self.model, Step(self.step - 1, self.total))

    def _norms(self) -> dict[str, Tensor]:
        image, text = ({id(p) for p in tower.parameters()} for tower in (self.model.image, self.model.text))
        sides: dict[str, list[Tensor]] = {"image": [], "text": [], "new": []}
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                side = "image" if id(p) in image else "text" if id(p) in text else "new"
                if side != "new" or not name.startswith("clip."):  # neither: the logit scale
                    sides[side].append(p.grad)
        norms = {f"gradient/{side}": grads for side, grads in sides.items() if grads}
        return {name: torch.nn.utils.get_total_norm(grads).float() for name, grads in norms.items()}

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean losses over batches and ranks."""
        found: list[dict[str, Tensor]] = []
        for batch in batches:
            with self.precision():
                found.append(self.objective.losses(self.model, batch.to(self.device)))
        table = ranks.mean(torch.stack([torch.stack(list(losses.values())) for losses in found]).mean(0))
        return dict(zip(found[0], table.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, beside the place in the data."""
        cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": [torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if cuda else None],
            "ema": None if self.ema is None else self.ema.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"][0])
        if self.device.type == "cuda" and state["rng"][1] is not None:
            torch.cuda.set_rng_state(state["rng"][1], self.device)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
