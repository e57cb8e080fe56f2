"""Image-text matching by triplet ranking, and how the weight of an attention loss grows over training."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from macco.pipeline.errors import UserError

MARGIN = 0.2


def triplet_ranking(
    positive: Tensor, negative: Tensor, valid: Tensor | None = None, margin: float = MARGIN
) -> Tensor:
    """Mean over samples of the mean over each one's negatives of max(0, margin + sig(negative) - sig(positive)).

    positive: matching logits of pairs [B]; negative: of the same anchor with negatives, [B, K];
    valid: [B, K] bool, which negatives exist (None: all). A sample without any counts as 0.
    """
    if valid is None:
        valid = torch.ones_like(negative, dtype=torch.bool)
    hinge = F.relu(margin + negative.float().sigmoid() - positive.float().sigmoid()[:, None])
    return (hinge.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp(min=1)).mean()


def hardest(similarity: Tensor, count: int) -> Tensor:
    """In-batch negatives: for each anchor the `count` likeliest of the other partners, [B, count] int64.

    similarity: [B, B], anchor by candidate, of any cheap model; its diagonal holds the true pairs. Without
    gradient. Where the batch has fewer than `count` others, all of them.
    """
    own = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    others = similarity.detach().masked_fill(own, -math.inf)
    return others.topk(min(count, len(similarity) - 1), dim=1).indices


def annealing(fraction: float, schedule: str = "exp") -> float:
    """The weight's factor at `fraction` of training, 0..1, by a schedule of SCHEDULES.

    Raises:
        UserError: no such schedule.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"no annealing schedule {schedule!r}: choose from {', '.join(SCHEDULES)}")
    return SCHEDULES[schedule](fraction)


SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "exp": lambda t: math.exp(5 * (t - 1)),
        "linear": lambda t: t,
        "log": lambda t: 1 - math.exp(-5 * t),
        "constant": lambda t: 1.0,
    }
)
