"""CE-CLIP's two terms on hard negative captions (Zhang et al., CVPR 2024). Features are normalised.

b pairs on this rank, B over all ranks, K hard negatives per caption, one of each kind; valid: which exist.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def intra_modal_negatives(
    text: Tensor, image: Tensor, negatives: Tensor, valid: Tensor, scale: Tensor
) -> Tensor:
    """Caption against all hard negatives, as texts; the score of its own image is the positive's.

    text, image: [b, D]; negatives: [C, D] of all ranks; valid: [C] or [b, C] bool. Returns the mean over captions.
    """
    right = (text * image).sum(1, keepdim=True)
    against = (scale * text @ negatives.T).masked_fill(~valid, float("-inf"))
    logits = torch.cat([scale * right, against], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))


def rank_negatives(
    text: Tensor, image: Tensor, negatives: Tensor, valid: Tensor, scale: Tensor, margin: Tensor
) -> Tensor:
    """Each image prefers its caption to each own hard negative by a margin: mean hinge over all b * K.

    text, image: [b, D]; negatives: [b, K, D]; valid: [b, K] bool (others count as 0); margin: [K] per kind.
    """
    return (F.relu(margin - _gaps(text, image, negatives, scale)) * valid).mean()


def next_margin(
    text: Tensor, image: Tensor, negatives: Tensor, valid: Tensor, scale: Tensor, margin: Tensor, limit: float
) -> Tensor:
    """The margins [K] for the next step: the mean gap of each kind now, at most `limit`; without gradient.

    Shapes as in `rank_negatives`, of all ranks. A kind that this batch does not have keeps its margin.
    """
    with torch.no_grad():
        right = (scale * (text * image).sum(1)).mean()
        against = scale * (negatives @ image[:, :, None])[..., 0]
        mean = (against * valid).sum(0) / valid.sum(0).clamp(min=1)
        return torch.where(valid.any(0), (right - mean).clamp(max=limit), margin)


def _gaps(text: Tensor, image: Tensor, negatives: Tensor, scale: Tensor) -> Tensor:
    right = (text * image).sum(1, keepdim=True)
    return scale * (right - (negatives @ image[:, :, None])[..., 0])
