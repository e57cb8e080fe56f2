"""A few reconstructions to look at: words predicted at masked places, masked patches painted."""

from typing import Any

import torch
from torch import Tensor

from macco.train.losses.masked import patch_pixels
from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.objective import Example, Pixels

TOP = 3  # words shown at a masked place


@torch.no_grad()
def reconstruct(model: Macco, batch: MaskedBatch, tokenizer: Any) -> list[Example]:
    """Show what a model makes of a batch.

    Pixels are predicted up to each patch's mean and contrast, which are taken from the original.
    """
    method = model.method
    pixels = model.pixels(batch.images)
    encodings = model.encode(batch, pixels)
    likeliest: list[list[int]] = []
    if method.mlm:
        likeliest = model.words(batch, encodings).topk(TOP).indices.tolist()
    painted = None
    if method.mim:
        target = patch_pixels(pixels, model.image.patch, batch.patch_slots)
        rebuilt = model.rebuilt(batch, encodings)
        if method.normalise_pixels:
            rebuilt = rebuilt * (target.var(1, keepdim=True) + 1e-6).sqrt() + target.mean(1, keepdim=True)
        painted = _images(model, _put(pixels, rebuilt, batch, model.image.patch))
    grey = torch.zeros(int(batch.patch_mask.sum()), 3 * model.image.patch[0] * model.image.patch[1])
    images, masked = (_images(model, x) for x in (pixels, _put(pixels, grey, batch, model.image.patch)))
    words = _words(batch, model.text.valid(batch.tokens), likeliest, tokenizer)
    return [
        Example(batch.ids[i], words[i], images[i], masked[i], None if painted is None else painted[i])
        for i in range(len(batch))
    ]


def _words(
    batch: MaskedBatch, valid: Tensor, likeliest: list[list[int]], tokenizer: Any
) -> list[list[tuple[str, list[str]]]]:
    decode = getattr(tokenizer, "tokenizer", tokenizer).decode
    guesses = iter(likeliest)
    captions = []
    for row in zip(batch.tokens.tolist(), batch.text_mask.tolist(), valid.tolist(), strict=True):
        words = [
            (decode([token]).strip(), [decode([guess]).strip() for guess in next(guesses)] if shown else [])
            for token, shown, inside in ((t, m and bool(likeliest), v) for t, m, v in zip(*row, strict=True))
            if inside
        ]
        captions.append([word for word in words if not word[0].startswith("<")])  # start and end
    return captions


def _put(pixels: Tensor, patches: Tensor, batch: MaskedBatch, patch: tuple[int, int]) -> Tensor:
    """The images [B, 3, S, S] with the masked patches replaced by [M, p * p * 3]."""
    painted = pixels.clone()
    across = pixels.shape[3] // patch[1]
    for values, sample, place in zip(
        patches, batch.patch_slots.sample, batch.patch_slots.position, strict=True
    ):
        row, column = int(place) // across * patch[0], int(place) % across * patch[1]
        block = values.view(*patch, 3).permute(2, 0, 1)
        painted[sample, :, row : row + patch[0], column : column + patch[1]] = block
    return painted


def _images(model: Macco, pixels: Tensor) -> list[Pixels]:
    colours = pixels * model.get_buffer("pixel_std") + model.get_buffer("pixel_mean")
    return list(colours.clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
