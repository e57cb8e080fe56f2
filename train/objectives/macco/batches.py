"""Batches with masks: which tokens and patches of each pair are to be rebuilt."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig, MaskConfig
from macco.train.data.loader import Loader, open_loader
from macco.train.data.masks import draw, masks
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Sample
from macco.train.objectives.macco.batch import MaskedBatch

__all__ = ["MaskedBatch", "MaskedPairs", "open_training_data"]


@dataclass(frozen=True, kw_only=True)
class MaskedPairs(Recipe):
    """Crops, captions, and the masks that are drawn for them."""

    patch_size: int

    def __post_init__(self) -> None:
        if min(self.image_size, self.patch_size) < 1 or self.image_size % self.patch_size:
            raise UserError(f"patches of {self.patch_size} pixels do not divide images of {self.image_size}")

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        image, crop = self.crop(sample, random)
        tokens = self.tokenize(sample.caption)
        grid = self.image_size // self.patch_size
        drawn = draw(sample.concepts, sample.caption, tokens, crop, grid, self.masks, random)
        return (sample.id, sample.image), image, drawn, self.hard_negatives(sample)

    def collate(self, made: list[Any]) -> MaskedBatch:
        names, images, drawn, hard = zip(*made, strict=True)
        pairs = self.pairs(names, images, [one.tokens.ids for one in drawn], hard)
        grid = self.image_size // self.patch_size
        text, patch = masks(drawn, pairs["tokens"].shape[1], grid)
        return MaskedBatch(**pairs, text_mask=torch.from_numpy(text), patch_mask=torch.from_numpy(patch))


def open_training_data(
    store: str | Path,
    tokenizer: Any,
    *,
    image_size: int,
    patch_size: int,
    batch_size: int,
    where: str = "",
    keep: Literal["all", "concept", "box"] = "all",
    masks: MaskConfig | None = None,
    captions: Literal["all", "one"] = "all",
    full_length: bool = False,
    negatives: int = 0,
    cache: str = "",
    crop: Literal["cpu", "device"] = "cpu",
    workers: int = 2,
    prefetch: int = 4,
    max_broken: int = 1000,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    log: Callable[[str], None] = print,
) -> Loader[MaskedBatch]:
    """The masked batches of a store, for a training loop of one's own.

    Images are uint8 [B, 3, image_size, image_size], with `crop="device"` after a batch's `to`. `tokenizer` is
    open_clip's; `full_length` is for text towers that read their padding (SigLIP). `batch_size` counts the pairs of a
    step over all ranks. The other settings are those of macco.train.config.DataConfig; `open_loader` takes them, and
    says what is refused.
    """
    data = DataConfig(
        store=str(store), where=where, keep=keep, captions=captions, batch_size=batch_size, cache=cache, crop=crop,
        workers=workers, prefetch=prefetch, max_broken=max_broken,
    )  # fmt: skip
    recipe = MaskedPairs(
        tokenize=Tokenize(tokenizer), image_size=image_size, patch_size=patch_size, full_length=full_length,
        negatives=negatives, masks=masks or MaskConfig(),
    )  # fmt: skip
    return open_loader(data, recipe, seed=seed, rank=rank, world_size=world_size, log=log)
