"""FSC-CLIP's losses (Oh et al., EMNLP 2024). b pairs, T = 1 + K captions of each: its own, then hard negatives.

P patches, L tokens, joint width D; scale: the factor on the cosine.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def local_scores(
    patches: Tensor, tokens: Tensor, attended: Tensor, scale: Tensor, *, reference: bool = False
) -> Tensor:
    """S(X, Y) of each image with its captions: log-sum-exp over tokens of their cosine with the patches they pick.

    patches: [b, P, D] and tokens: [b, T, L, D], not normalised; attended: [b, T, L] bool. Returns [b, T].
    A token picks patches by its similarity with each, scaled to 0..1 over them, without gradient. Where all patches
    are equally near it picks them all; the public code (`reference`) divides by 0 there.
    """
    with torch.no_grad():
        near = torch.einsum("btld,bpd->btlp", tokens, patches)
        low, high = near.amin(-1, keepdim=True), near.amax(-1, keepdim=True)
        share = (near - low) / (high - low)
        if not reference:
            share = torch.where(high > low, share, torch.ones_like(share))
        share = share / share.sum(-1, keepdim=True)
    picked = F.normalize(torch.einsum("btlp,bpd->btld", share, patches), dim=-1)
    cosine = (picked * F.normalize(tokens, dim=-1)).sum(-1)
    return (scale * cosine).masked_fill(~attended, -torch.inf).logsumexp(-1)


def focal_hard_negatives(
    scores: Tensor,
    present: Tensor,
    rows: Tensor | float,
    *,
    gamma: float,
    smoothing: float,
    reference: bool = False,
) -> Tensor:
    """Focal cross-entropy of the own caption among its hard negatives, smoothed over those that there are.

    scores: [b, 1 + K], the own caption first; present: [b, K] bool; rows: how many pairs have a hard negative, of
    all ranks, divided by the ranks. Pairs without any count for nothing. An absent negative is no candidate; in the
    public code (`reference`) its logit is 0. Returns the sum over this rank's pairs divided by `rows`.
    """
    if reference:
        logits = torch.cat([scores[:, :1], scores[:, 1:] * present], 1)
    else:
        logits = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(~present, -torch.inf)], 1)
    log_p = logits.log_softmax(1)
    there = F.pad(present, (1, 0), value=True)
    target = there * (smoothing / there.sum(1, keepdim=True).to(scores.dtype))
    target = target + F.pad(torch.full_like(target[:, :1], 1 - smoothing), (0, present.shape[1]))
    # Where a candidate is absent both factors are none of the loss: no 0 times infinity, in the gradient neither.
    log_p = torch.where(there, log_p, 0.0)
    focal = target * (1 - log_p.exp()) ** gamma * -log_p
    return (focal.sum(1) * present.any(1)).sum() / rows
