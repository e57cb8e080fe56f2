"""C2LIP's losses (Pham et al., CVPR 2026). b images on this rank, N phrases of all; features are normalised."""

import torch
from torch import Tensor

EPSILON = 1e-8  # the least length that a pooled patch is divided by


def attended_cosines(patches: Tensor, phrases: Tensor, within: Tensor | None = None) -> Tensor:
    """The cosine [b, N] of each phrase with the patches of each image, pooled by how near they are to the phrase.

    patches: [b, P, D]; phrases: [N, D]; within: [b, N, P] bool, which patches count (None: all; at least one each).
    The weights are a softmax over patches of their cosine with the phrase, as it is. The pooled patch itself,
    [b, N, D], is never made: its product with the phrase and, by the patches' own products, its length are enough.
    """
    near = torch.einsum("bpd,nd->bnp", patches, phrases)
    shown = near if within is None else near.masked_fill(~within, -torch.inf)
    weight = shown.softmax(-1)
    square = ((weight @ (patches @ patches.mT)) * weight).sum(-1)
    return (weight * near).sum(-1) / square.clamp(min=EPSILON**2).sqrt()


def phrase_labels(owner: Tensor, pairs: int, first: int, neither: Tensor | None = None) -> Tensor:
    """Labels [b, N] of this rank's images with all phrases, as `losses.sigmoid` has them.

    owner: [N], the place of each phrase's pair among those of all ranks; first: the place of this rank's pair 0 there;
    neither: [b, N] bool, phrases that are no wrong answers.
    """
    labels = torch.full((pairs, len(owner)), -1, dtype=torch.int8, device=owner.device)
    if neither is not None:
        labels.masked_fill_(neither, 0)
    return labels.masked_fill_(owner == first + torch.arange(pairs, device=owner.device)[:, None], 1)


def told(owner: Tensor, ids: Tensor, every: Tensor, pairs: int) -> Tensor:
    """Which of all phrases are equal to one of each pair's own, [b, N] bool.

    owner, ids: [m], of this rank's phrases the pair and a number, equal where phrases are; every: [N], all numbers.
    """
    equal = (ids[:, None] == every).float()
    return equal.new_zeros(pairs, len(every)).index_add_(0, owner, equal) > 0
