"""Parameter groups of the released recipe."""

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
