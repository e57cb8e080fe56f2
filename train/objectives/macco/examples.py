"""A few reconstructions to look at: words predicted at masked places, masked patches painted."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from macco.train.clip.start import load_start
from macco.train.config import TrainConfig
from macco.train.data.batch import Batch
from macco.train.loop.run import open_loader
from macco.train.losses.masked import patch_pixels
from macco.train.objectives.macco.model import Macco
from macco.train.runs import checkpoint

Pixels = NDArray[np.uint8]  # [S, S, 3]
TOP = 3  # words shown at a masked place


@dataclass(frozen=True)
class Example:
    """One masked pair, and what the model makes of it."""

    id: str
    words: list[tuple[str, list[str]]]  # each token, and where it was masked the likeliest ones
    image: Pixels
    masked: Pixels
    painted: Pixels | None  # None where the run reconstructs no pixels


@torch.no_grad()
def reconstruct(run: Path, config: TrainConfig, count: int) -> list[Example]:
    """Show the latest checkpoint of a run some samples of its training set.

    Pixels are predicted up to each patch's mean and contrast, which are taken from the original.
    """
    data = replace(config.data, batch_size=count, workers=0)
    start = load_start(config.model, config.seed)
    model = Macco(start.model, config.method)
    model.load_state_dict(checkpoint.load(run, checkpoint.LATEST)["model"])
    loader = open_loader(data, model, start.tokenizer, config.masks, config.seed, lambda line: None)
    batch = next(iter(loader))
    pixels = model.pixels(batch.images)
    model.method = replace(config.method, negatives=0)
    encodings = model.encode(batch, pixels)
    likeliest: list[list[int]] = []
    if config.method.mlm:
        likeliest = model.words(batch, encodings).topk(TOP).indices.tolist()
    painted = None
    if config.method.mim:
        target = patch_pixels(pixels, model.image.patch, batch.patch_slots)
        rebuilt = model.rebuilt(batch, encodings)
        if config.method.normalise_pixels:
            rebuilt = rebuilt * (target.var(1, keepdim=True) + 1e-6).sqrt() + target.mean(1, keepdim=True)
        painted = _images(model, _put(pixels, rebuilt, batch, model.image.patch))
    grey = torch.zeros(int(batch.patch_mask.sum()), 3 * model.image.patch[0] * model.image.patch[1])
    images, masked = (_images(model, x) for x in (pixels, _put(pixels, grey, batch, model.image.patch)))
    words = _words(batch, model.text.valid(batch.tokens), likeliest, start.tokenizer)
    return [
        Example(batch.ids[i], words[i], images[i], masked[i], None if painted is None else painted[i])
        for i in range(count)
    ]


def _words(
    batch: Batch, valid: Tensor, likeliest: list[list[int]], tokenizer: Any
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


def _put(pixels: Tensor, patches: Tensor, batch: Batch, patch: tuple[int, int]) -> Tensor:
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
