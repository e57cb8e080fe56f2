"""CS-CLIP's contrasts (Kargi, Uselis, Oh, 2026). b pairs on this rank, B of all, D the joint width.

Features are normalised. A row is an anchor that counts; `rows`: how many there are of all ranks, divided by the ranks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from macco.train.losses.sigmoid import sigmoid_loss


@dataclass(frozen=True)
class Pairing:
    """Images and texts of this rank and of all, and who is whose wrong answer."""

    image: Tensor  # [b, D]
    text: Tensor  # [b, D]
    every_image: Tensor  # [B, D]
    every_text: Tensor  # [B, D]
    first: int  # the place of this rank's pair 0 among the B
    texts: Tensor  # [b, B] bool: the texts that count for each image, its own too
    images: Tensor  # [b, B] bool: the images that count for each text


def cross_entropy(logits: Tensor, own: Tensor, counts: Tensor, rows: Tensor | float) -> Tensor:
    """Sum over the rows that count of -log softmax at `own`, divided by `rows`. logits: [b, C]; own, counts: [b]."""
    # What is left out may have no candidate at all: its gradient is 0, and not that of an infinity.
    logits = torch.where(counts[:, None], logits, 0.0)
    return (F.cross_entropy(logits, own, reduction="none") * counts).sum() / rows


def foil_contrast(
    pairing: Pairing,
    scale: Tensor,
    counts: Tensor,
    rows: Tensor | float,
    foils: Tensor,
    there: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean of both directions of a contrast in which images have foils as further candidates.

    counts: [b] bool, which pairs are anchors; foils: [C, D], candidates of every image, or [b, 1, D], of its own alone;
    there: [b, C] bool, which of them count ([b, 1] for its own); bias: of the sigmoid, where it is one (SigLIP's).
    """
    p = pairing
    own = p.first + torch.arange(len(p.image), device=p.image.device)
    against = p.image @ foils.T if foils.ndim == 2 else (foils @ p.image[:, :, None])[..., 0]
    to_text = scale * torch.cat([p.image @ p.every_text.T, against], 1)
    to_image = scale * p.text @ p.every_image.T
    sides = [(to_text, torch.cat([p.texts, there], 1)), (to_image, p.images)]
    if bias is not None:
        both = [_sigmoid(logits + bias, present, own, counts, rows) for logits, present in sides]
    else:
        both = [
            cross_entropy(logits.masked_fill(~present, -torch.inf), own, counts, rows)
            for logits, present in sides
        ]
    return (both[0] + both[1]) / 2


def _sigmoid(logits: Tensor, present: Tensor, own: Tensor, counts: Tensor, rows: Tensor | float) -> Tensor:
    labels = -(present & counts[:, None]).to(torch.int8)
    labels.scatter_(1, own[:, None], counts[:, None].to(torch.int8))
    return sigmoid_loss(logits, labels, rows)


def true_of(ids: Tensor, others: Tensor) -> Tensor:
    """Which texts are equal to one of each image's own, [b, C] bool. ids: [b, N] of the images' texts; others: [C]."""
    return (ids[:, :, None] == others).any(1)
