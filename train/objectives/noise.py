"""Batches of noise in a model's sizes, to measure steps with."""

from typing import Any

import torch

from macco.train.objectives.model import Model

WORDS = 14  # of a caption: tokens, as in COCO


def random_pairs(model: Model, size: int) -> dict[str, Any]:
    """What every batch has, of `size` pairs: images, tokens, ids."""
    random = torch.Generator().manual_seed(0)
    length = model.text.context if model.text.fixed_length else WORDS
    tokens = torch.zeros(size, length, dtype=torch.long)
    words = torch.randint(1, model.text.vocabulary - 2, (size, WORDS - 1), generator=random)
    tokens[:, : WORDS - 1], tokens[:, WORDS - 1] = words, model.text.vocabulary - 1
    (rows, columns), patch = model.image.grid, model.image.patch
    shape = (size, 3, rows * patch[0], columns * patch[1])
    images = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    return {"images": images, "tokens": tokens, "ids": [f"{row}/0" for row in range(size)]}
