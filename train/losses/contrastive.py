"""Contrastive losses. b pairs on this rank, B over all ranks, D the joint width; features are normalised.

`first` is the place of this rank's pair 0 among the B. Anchors are local and candidates global, so that the
largest matrix is [2b, 2B]: memory does not grow with the square of the global batch. The mean over ranks of
each loss is the loss of the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from macco.train.losses.sigmoid import sigmoid_contrast


def info_nce(
    anchors: Tensor, candidates: Tensor, positives: Tensor, scale: Tensor, present: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each anchor's similarities with its positive as the class.

    anchors: [N, D]; candidates: [C, D]; positives: [N] int64 in 0..C-1; scale: scalar factor on the cosine;
    present: [C] or [N, C] bool, which candidates count. Returns the mean over anchors.
    """
    logits = (scale * anchors) @ candidates.T
    if present is not None:
        logits = logits.masked_fill(~present, float("-inf"))
    return F.cross_entropy(logits, positives)


def contrast(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor,
    scale: Tensor,
    present: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """`info_nce`, or with a bias the sigmoid loss of the same pairings: each by itself, summed for each anchor."""
    if bias is None:
        return info_nce(anchors, candidates, positives, scale, present)
    shape = (len(anchors), len(candidates))
    labels = torch.full(shape, -1, dtype=torch.int8, device=anchors.device)
    if present is not None:
        labels.masked_fill_(~present, 0)
    labels.scatter_(1, positives[:, None], 1)
    return sigmoid_contrast(anchors, candidates, labels, scale, bias, len(anchors))


def clip_contrast(
    text: Tensor,
    image: Tensor,
    all_text: Tensor,
    all_image: Tensor,
    scale: Tensor,
    first: int = 0,
    negatives: Tensor | None = None,
    negative_valid: Tensor | None = None,
    same: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Symmetric contrast between modalities: CLIP's, MACCO's augmented alignment, or NegCLIP's.

    text, image: anchors [V, b, D], view 0 being the full samples; further views are masked ones.
    all_text, all_image: candidates [V, B, D].
    negatives: hard negative captions [C, D] of all ranks, more candidates for image anchors; negative_valid:
    [C] or [b, C] bool, which of them count (None: all).
    same: [b, B] bool, pairs that are no wrong answers to each other (see losses.pairs), in any view.
    bias: of the sigmoid, which there is then in place of the softmax (SigLIP's loss where there is one view).
    The positive of anchor i in every view is the full partner i. Returns the mean of both directions.
    """
    positives = first + torch.arange(text.shape[1], device=text.device).repeat(len(text))
    count, pairs = len(positives), None if same is None else ~same.repeat(len(text), len(all_text))
    captions, present = all_text.flatten(0, 1), pairs
    if negatives is not None:
        if negative_valid is not None or present is not None:
            made = negatives.new_ones(1, len(negatives)) if negative_valid is None else negative_valid
            made = made.bool().expand(text.shape[1], -1).repeat(len(text), 1)
            there = made.new_ones(count, len(captions)) if present is None else present
            present = torch.cat([there, made], 1)
        captions = torch.cat([captions, negatives])
    to_image = contrast(text.flatten(0, 1), all_image.flatten(0, 1), positives, scale, pairs, bias)
    to_text = contrast(image.flatten(0, 1), captions, positives, scale, present, bias)
    return (to_image + to_text) / 2


def intra_modal(
    masked: Tensor,
    full: Tensor,
    all_masked: Tensor,
    all_full: Tensor,
    scale: Tensor,
    first: int = 0,
    same: Tensor | None = None,
) -> Tensor:
    """MACCO's intra-modal regularisation for one modality: symmetric InfoNCE masked <-> full.

    masked, full: [b, D]; all_masked, all_full: [B, D]; same: as in `clip_contrast`.
    """
    positives = first + torch.arange(len(full), device=full.device)
    pairs = None if same is None else ~same
    to_full = info_nce(masked, all_full, positives, scale, pairs)
    return (to_full + info_nce(full, all_masked, positives, scale, pairs)) / 2
