"""SigLIP's sigmoid losses (Zhai et al., ICCV 2023): each pairing is right or wrong by itself, without a softmax.

b anchors on this rank, C candidates of all ranks, D the joint width; features are normalised. labels: [b, C], 1 where
a candidate is right for the anchor, -1 where it is wrong, 0 where it counts as neither.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(logits: Tensor, labels: Tensor, count: Tensor | float) -> Tensor:
    """Sum over pairings [b, C] of -log sigmoid(label logit), divided by `count`."""
    right = labels.to(logits.dtype)
    return -(F.logsigmoid(right * logits) * right.abs()).sum() / count


def sigmoid_contrast(
    anchors: Tensor, candidates: Tensor, labels: Tensor, scale: Tensor, bias: Tensor, count: Tensor | float
) -> Tensor:
    """The loss of anchors [b, D] with candidates [C, D]; bias: what is added to the scaled cosine."""
    return sigmoid_loss(scale * anchors @ candidates.T + bias, labels, count)


def own_pairs(pairs: int, every: int, first: int, same: Tensor | None, device: torch.device) -> Tensor:
    """Labels [b, B] of pairs with those of all ranks: each is right for itself alone.

    first: the place of this rank's pair 0 among the B; same: [b, B] bool, what is no wrong answer (see losses.pairs).
    """
    labels = torch.full((pairs, every), -1, dtype=torch.int8, device=device)
    if same is not None:
        labels.masked_fill_(same, 0)
    rows = torch.arange(pairs, device=device)
    labels[rows, first + rows] = 1
    return labels
