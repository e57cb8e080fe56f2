"""CS-CLIP's contrasts (Kargi, Uselis, Oh, 2026). b pairs on this rank, B of all, D the joint width.

Features are normalised. A row is an anchor that counts; `rows`: how many there are of all ranks, divided by the ranks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
) -> Tensor:
    """Mean of both directions of a contrast in which images have foils as further candidates.

    counts: [b] bool, which pairs are anchors; foils: [C, D], candidates of every image, or [b, 1, D], of its own alone;
    there: [b, C] bool, which of them count ([b, 1] for its own).
    """
    p = pairing
    own = p.first + torch.arange(len(p.image), device=p.image.device)
    against = p.image @ foils.T if foils.ndim == 2 else (foils @ p.image[:, :, None])[..., 0]
    to_text = scale * torch.cat([p.image @ p.every_text.T, against], 1)
    to_text = to_text.masked_fill(~torch.cat([p.texts, there], 1), -torch.inf)
    to_image = (scale * p.text @ p.every_image.T).masked_fill(~p.images, -torch.inf)
    both = (cross_entropy(logits, own, counts, rows) for logits in (to_text, to_image))
    return sum(both, scale.new_zeros(())) / 2


def true_of(ids: Tensor, others: Tensor) -> Tensor:
    """Which texts are equal to one of each image's own, [b, C] bool. ids: [b, N] of the images' texts; others: [C]."""
    return (ids[:, :, None] == others).any(1)
