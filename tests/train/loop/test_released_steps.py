"""The released preset's first steps against the public recipe written out: losses, groups, rates, temperature."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from macco.train.layers import preset, resolve
from macco.train.loop.state import State
from macco.train.objectives.objective import load_objective
from tests.support.literal import losses
from tests.support.tiny import tiny_batch, tiny_clip

HEADS = 8  # of the predictors, the preset's own
STEPS, TOTAL = 4, 1000


def theirs(weights: dict[str, Tensor]) -> torch.optim.Optimizer:
    """AdamW over the public code's three groups: the temperature is in the last."""
    plain = {
        name: p for name, p in weights.items() if name.startswith("clip.") and name != "clip.logit_scale"
    }
    new = [p for name, p in weights.items() if name not in plain]
    groups = [
        {"params": [p for p in plain.values() if p.ndim < 2], "lr": 5e-7, "weight_decay": 0.0},
        {"params": [p for p in plain.values() if p.ndim >= 2], "lr": 5e-7, "weight_decay": 0.2},
        {"params": new, "lr": 1e-3, "weight_decay": 0.01},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)


@pytest.mark.parametrize("name", ["released-vitb32", "released-vitl14"])
def test_the_first_steps_are_those_of_the_public_recipe(name: str) -> None:
    config = resolve(preset(name), {"device": "cpu", "precision": "fp32"})
    objective = load_objective(config)
    torch.manual_seed(3)
    model: Any = objective.model(tiny_clip()).double()
    state = State(objective, model, TOTAL)
    weights = {key: value.detach().clone().requires_grad_() for key, value in model.named_parameters()}
    fixed = {key: value for key, value in model.state_dict().items() if key not in weights}
    optimizer = theirs(weights)
    begun = {key: value.detach().clone() for key, value in weights.items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(STEPS):
        batch = tiny_batch(seed=10 + step)
        batch = replace(batch, images=(batch.images * 64 + 128).clamp(0, 255).byte())
        found, _ = state.update(batch)
        batch = replace(batch, images=model.pixels(batch.images))
        expected = losses(weights | fixed, batch, heads=HEADS, padding=True)
        for key in ("contrast", "mir", "mlm", "mim", "loss"):
            assert found[key].item() == pytest.approx(expected[key].item(), rel=1e-5), (step, key)
        optimizer.zero_grad()
        expected["loss"].backward()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (step + 1) / 50  # the warm-up
        optimizer.step()
    # Losses hardly tell rates apart after a few steps: what each parameter moved by does.
    for key, parameter in model.named_parameters():
        moved, wanted = parameter.detach() - begun[key], weights[key].detach() - begun[key]
        assert (moved - wanted).norm() <= 1e-4 * wanted.norm() + 1e-15, key
    assert (weights["clip.logit_scale"].detach() - begun["clip.logit_scale"]).abs() > 1e-5
