"""DeGLA's losses on hard negatives (arXiv 2504.16801). b pairs on this rank, T = 1 + K captions of each, its own first.

Features are normalised; there: [b, T] bool, which captions exist. Pairs without a hard negative count for nothing;
`rows`: how many have one, of all ranks, divided by the ranks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 10.0  # the factor on the cosine of two captions


def image_grounded(
    image: Tensor, texts: Tensor, there: Tensor, rows: Tensor | float, scale: Tensor
) -> Tensor:
    """Cross-entropy of each image's own caption among its hard negatives. image: [b, D]; texts: [b, T, D]."""
    return _own_first(scale * (texts @ image[:, :, None])[..., 0], there, rows)


def text_grounded(
    texts: Tensor, teacher: Tensor, there: Tensor, rows: Tensor | float, *, reference: bool = False
) -> Tensor:
    """Cross-entropy of the teacher's feature of each caption among its hard negatives, for the caption itself.

    texts: [b, T, D]; teacher: [b, D]. In the public code (`reference`) caption i has every b-th of all negatives from
    the i-th on, which are others'; here they are its own.
    """
    own, negatives = texts[:, 0], texts[:, 1:]
    if reference:
        count, kinds, width = negatives.shape
        negatives = negatives.reshape(kinds, count, width).transpose(0, 1)
    against = torch.cat([teacher[:, None], negatives], 1)
    return _own_first(SCALE * (against @ own[:, :, None])[..., 0], there, rows)


def _own_first(logits: Tensor, there: Tensor, rows: Tensor | float) -> Tensor:
    logits = logits.masked_fill(~there, -torch.inf)
    losses = F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long), reduction="none")
    return (losses * there[:, 1:].any(1)).sum() / rows
