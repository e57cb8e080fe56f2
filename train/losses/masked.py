"""Reconstruction losses over M masked positions.

Each loss is the mean over a sample's masked positions, then over the samples that have any. `samples` is the
number of these, positive; counted over all ranks and divided by the number of ranks, it makes the mean over
ranks the loss of the whole batch.
"""

import torch.nn.functional as F
from torch import Tensor

from macco.train.data.slots import Slots


def mean_per_sample(per_position: Tensor, slots: Slots, samples: Tensor | float) -> Tensor:
    """[M] to the mean over samples of the mean over each sample's positions; 0 where nothing is masked."""
    return (per_position / slots.count).sum() / samples


def masked_words(logits: Tensor, tokens: Tensor, slots: Slots, samples: Tensor | float) -> Tensor:
    """Cross-entropy at the masked tokens. logits: [M, vocabulary]; tokens: [B, L]."""
    per_token = F.cross_entropy(logits, tokens[slots.sample, slots.position], reduction="none")
    return mean_per_sample(per_token, slots, samples)


def patch_pixels(images: Tensor, patch: tuple[int, int], slots: Slots) -> Tensor:
    """Pixels of the masked patches. images: [B, 3, S, S]. Returns [M, p * p * 3]: rows, columns, channels."""
    batch, channels, height, width = images.shape
    grid = images.view(batch, channels, height // patch[0], patch[0], width // patch[1], patch[1])
    row, column = slots.position // (width // patch[1]), slots.position % (width // patch[1])
    return grid.permute(0, 2, 4, 3, 5, 1)[slots.sample, row, column].flatten(1)


def masked_pixels(
    predicted: Tensor, pixels: Tensor, slots: Slots, samples: Tensor | float, *, normalise: bool
) -> Tensor:
    """Squared error at the masked patches, mean over pixels. predicted, pixels: [M, p * p * 3].

    normalise: each target patch to zero mean and unit (unbiased) variance, as the public code does.
    """
    if normalise:
        pixels = pixels - pixels.mean(1, keepdim=True)
        variance = pixels.square().sum(1, keepdim=True) / (pixels.shape[1] - 1)
        pixels = pixels / (variance + 1e-6).sqrt()
    return mean_per_sample((predicted - pixels).square().mean(1), slots, samples)
