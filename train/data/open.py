"""Training batches straight from a concept store."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from macco.pipeline.cache import ImageCache
from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.data.index import build
from macco.train.data.loader import Batches, Loader, Plan, RegionPlan
from macco.train.data.masks import MaskConfig
from macco.train.data.rows import NEGATIVE_KINDS, NEGATIVES
from macco.train.data.selection import Selection
from macco.train.data.tokens import Tokenize
from macco.train.objectives.joint.batches import RegionBatches

__all__ = ["Loader", "MaskConfig", "RegionPlan", "open_training_data"]


def open_training_data(
    store_url: str,
    tokenizer: Any,
    *,
    image_size: int,
    patch_size: int,
    batch_size: int,
    where: str = "",
    keep: Literal["all", "concept", "box"] = "all",
    masks: MaskConfig | None = None,
    full_length: bool = False,
    cache: str | None = None,
    negatives: int = 0,
    regions: RegionPlan | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 2,
    prefetch: int = 4,
    max_broken: int = 1000,
    pin_memory: bool | None = None,
    log: Callable[[str], None] = print,
) -> Loader:
    """Select a training set and return a loader of its batches; images are uint8 [B, 3, image_size, image_size].

    `where` is SQL over the columns of samples, concepts and boxes (see Selection for what each clause drops);
    what it leaves is told to `log`, on rank 0. `batch_size` counts the pairs of one rank. `full_length` is for
    text towers that read their padding (Text.fixed_length). `cache` is what `macco-prep cache` made; `negatives`
    hard negatives of `macco-train negatives` come with each pair. With `regions` batches are those of joint
    objectives: regions, and no masks. More than `max_broken` unreadable images on
    one rank end the run; until then each is replaced and counted.

    Raises UserError for a store or cache that is not there, a condition that is none, an empty training set.
    """
    if image_size % patch_size:
        raise UserError(f"patches of {patch_size} pixels do not divide images of {image_size}")
    if not 0 <= rank < world_size or batch_size < 1:
        raise UserError(f"rank {rank} of {world_size} with batches of {batch_size}: these cannot be")
    masks = masks or MaskConfig()
    selection = Selection.of(where, masks, keep)
    if cache is not None:
        ImageCache.open(cache)
    store = Store.open(store_url)
    if not 0 <= negatives <= len(NEGATIVE_KINDS):
        raise UserError(f"{negatives} negatives per caption: there are {len(NEGATIVE_KINDS)} kinds")
    if negatives and not store.fs.exists(store.path(NEGATIVES)):
        raise UserError(
            f"{store_url} has no hard negatives: make them with: macco-train negatives {store_url}"
        )
    index = build(store, selection, log if rank == 0 else lambda line: None)
    plan = Plan(
        store_url=store_url,
        cache_url=cache,
        index=index,
        selection=selection,
        masks=masks,
        tokenize=Tokenize(tokenizer),
        full_length=full_length,
        image_size=image_size,
        patch_size=patch_size,
        batch_size=batch_size,
        negatives=negatives,
        seed=seed,
        rank=rank,
        world_size=world_size,
        regions=regions,
    )
    pin = torch.cuda.is_available() if pin_memory is None else pin_memory
    return Loader(plan, workers, prefetch, max_broken, pin, Batches if regions is None else RegionBatches)
