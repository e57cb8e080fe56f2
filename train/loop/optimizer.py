"""What the optimizer is told: parameter groups, and the learning rate of each step.

The rate is a function of the step alone: nothing to save, nothing that accumulation can shift.
"""

import math
from typing import Any

from torch import nn

SCALE = "clip.logit_scale"


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    predictor_lr: float,
    decay: float,
    predictor_decay: float,
    scale_lr: float | None = None,
    scale_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Groups for AdamW: CLIP's matrices, CLIP's gains and biases (no decay), its logit scale, and what is new.

    The logit scale has a group of its own where it has a rate or a decay of its own, and else is with the gains. In
    the public code it is one with what is new: scale_lr = predictor_lr, scale_decay = predictor_decay.
    Frozen parameters are in no group. Each group has a "name" beside the optimizer's own keys.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    apart = scale_lr is not None or scale_decay != 0
    clip = {name: p for name, p in trained if name.startswith("clip.")}
    scale = [clip.pop(SCALE)] if apart and SCALE in clip else []
    new = [p for name, p in trained if not name.startswith("clip.")]
    matrices, gains = ([p for p in clip.values() if (p.ndim >= 2) is wide] for wide in (True, False))
    groups = [
        {"name": "clip", "params": matrices, "lr": lr, "weight_decay": decay},
        {"name": "clip_gains", "params": gains, "lr": lr, "weight_decay": 0.0},
        {
            "name": "scale",
            "params": scale,
            "lr": lr if scale_lr is None else scale_lr,
            "weight_decay": scale_decay,
        },
        {"name": "new", "params": new, "lr": predictor_lr, "weight_decay": predictor_decay},
    ]
    return [group for group in groups if group["params"]]


def factor(step: int, warmup: int, total: int, first: float = 0.0, last: float = 0.0) -> float:
    """The share of the base rate at `step` (0-based) of `total`: a linear rise, then half a cosine.

    The rise begins at `first`, and at 1 / warmup where that is 0; the cosine falls to `last`.
    """
    if step < warmup:
        return first + (1 - first) * step / warmup if first else (step + 1) / warmup
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
