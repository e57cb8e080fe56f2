"""READ-CLIP's losses beside NegCLIP's contrast (Kwon et al., NeurIPS 2025)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(
    paraphrases: Tensor,
    text: Tensor,
    scale: Tensor,
    first: int,
    valid: Tensor,
    rows: Tensor | float,
    same: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each paraphrase's own caption among those of all ranks.

    paraphrases: [b, D] and text: [B, D], normalised; first: the place of this rank's pair 0 among the B; valid: [b]
    bool, which paraphrases exist; rows: how many do, of all ranks, divided by the ranks; same: [b, B] bool, pairs that
    are no wrong answers to each other (see losses.pairs). Returns the sum over this rank's divided by `rows`.
    """
    logits = scale * paraphrases @ text.T
    if same is not None:
        logits = logits.masked_fill(same, -torch.inf)
    own = first + torch.arange(len(paraphrases), device=text.device)
    return (F.cross_entropy(logits, own, reduction="none") * valid).sum() / rows


def reconstruction(logits: Tensor, labels: Tensor, tokens: Tensor | float) -> Tensor:
    """Cross-entropy of labels [M] under logits [M, V], summed over these and divided by `tokens`.

    tokens: how many labels there are, of all ranks and micro-batches, divided by the ranks.
    """
    return F.cross_entropy(logits, labels, reduction="sum") / tokens
