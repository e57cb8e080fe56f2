"""What the optimizer is told: parameter groups, and the learning rate of each step.

The rate is a function of the step alone: nothing to save, nothing that accumulation can shift.
"""

import math
from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, *, lr: float, predictor_lr: float, decay: float, predictor_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW: CLIP's matrices, CLIP's gains, biases and logit scale (no decay), and what is new.

    Frozen parameters are in no group. Each group has a "name" beside the optimizer's own keys.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    clip = [p for name, p in trained if name.startswith("clip.")]
    groups = [
        {"name": "clip", "params": [p for p in clip if p.ndim >= 2], "lr": lr, "weight_decay": decay},
        {"name": "clip_gains", "params": [p for p in clip if p.ndim < 2], "lr": lr, "weight_decay": 0.0},
        {
            "name": "new",
            "params": [p for name, p in trained if not name.startswith("clip.")],
            "lr": predictor_lr,
            "weight_decay": predictor_decay,
        },
    ]
    return [group for group in groups if group["params"]]


def factor(step: int, warmup: int, total: int) -> float:
    """The share of the base rate at `step` (0-based) of `total`: a linear rise, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
