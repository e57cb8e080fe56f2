"""Small batches of each objective, whose halves and micro-batches are unlike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from macco.train.data.batch import Batch
from macco.train.data.recipe import number
from macco.train.data.texts import TextSet
from macco.train.objectives.c2lip.batches import PhraseBatch
from macco.train.objectives.csclip.batches import UnitBatch
from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.read.batches import SiblingBatch
from tests.support.tiny import CONTEXT, PATCH, SIZE, VOCABULARY, tiny_batch

PATCHES = (SIZE // PATCH) ** 2


def captions(count: int, length: int, random: torch.Generator) -> Tensor:
    """Token ids [count, length] of a CLIP."""
    tokens = torch.randint(1, VOCABULARY - 2, (count, length), generator=random)
    tokens[:, 0], tokens[:, -1] = VOCABULARY - 2, VOCABULARY - 1
    return tokens


def padded(texts: Any) -> Tensor:
    """Token ids [n, the longest L]."""
    found = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, one in enumerate(texts):
        found[row, : len(one)] = torch.from_numpy(np.asarray(one))
    return found


def pairs(size: int, random: torch.Generator) -> dict[str, Any]:
    """Pairs 0 and 3 are of one image, 2 and 4 have one caption."""
    tokens = captions(size, CONTEXT - 4, random)
    if size > 4:
        tokens[4] = tokens[2]
    return {
        "images": torch.randn(size, 3, SIZE, SIZE, generator=random, dtype=torch.float64),
        "tokens": tokens,
        "ids": [str(i) for i in range(size)],
        "image_ids": torch.tensor([0, 1, 2, 0, 4, 5][:size]),
        "caption_ids": torch.tensor([0, 1, 2, 3, 2, 5][:size]),
    }


def hard_batch(size: int = 6, kinds: int = 3) -> Batch:
    """With hard negatives, of which some do not exist; the last pair has none."""
    random = torch.Generator().manual_seed(3)
    return Batch(
        **pairs(size, random),
        negatives=captions(size * kinds, CONTEXT - 2, random).view(size, kinds, -1),
        negative_valid=torch.tensor([[True, False, True]] * (size - 1) + [[False] * 3])[:, :kinds],
        negative_ids=torch.arange(size * kinds).view(size, kinds),
    )


def phrase_batch(size: int = 6, *, boxes: bool = False) -> PhraseBatch:
    """1, 3, 2, 1, 2, 4 phrases; one is of pairs 1 and 5, another of 0 and 3."""
    random = torch.Generator().manual_seed(4)
    made = [captions(1, 3 + k % 4, random)[0].numpy() for k in range(20)]
    texts = [[made[0]], made[1:4], made[4:6], [made[0]], made[6:8], [made[2], *made[8:11]]][:size]
    count = sum(map(len, texts))
    places = torch.rand(count, PATCHES, generator=random) < 0.4
    places[0] = True
    places[:, 3] = True
    phrases = TextSet.of(texts, padded, number, places if boxes else None)
    return PhraseBatch(**pairs(size, random), phrases=phrases)


def unit_batch(size: int = 6, slots: int = 2) -> UnitBatch:
    """Pair 1 has no foil, pair 4 no unit, pair 2 one without a foil; a unit is of pairs 0 and 5."""
    random = torch.Generator().manual_seed(5)
    there = torch.ones(size, slots, dtype=torch.bool)
    foils = torch.ones_like(there)
    foils[2, 1] = False
    there[4] = foils[4] = False
    units = captions(size * slots, 6, random).view(size, slots, -1)
    numbers = torch.arange(size * slots).view(size, slots)
    units[5, 1], numbers[5, 1] = units[0, 0], 0
    return UnitBatch(
        **pairs(size, random),
        negatives=captions(size, CONTEXT - 2, random)[:, None],
        negative_valid=torch.tensor([[True], [False], [True], [True], [True], [True]]),
        negative_ids=torch.tensor([[20], [21], [22], [23], [24], [1]]),
        units=units,
        unit_foils=captions(size * slots, 6, random).view(size, slots, -1),
        unit_valid=there,
        foil_valid=foils,
        unit_ids=numbers,
        entities=torch.tensor([3, 2, 1, 4, 0, 2]),
    )


def sibling_batch(size: int = 6) -> SiblingBatch:
    """Pair 1 has no other caption; labels are unlike in length; hard negatives as in `hard_batch`."""
    random = torch.Generator().manual_seed(6)
    labels = torch.randint(3, 200, (size, 7), generator=random)
    for row, length in enumerate([3, 0, 7, 5, 2, 6][:size]):
        labels[row, length:] = -100
    hard = hard_batch(size, 2)
    return SiblingBatch(
        **vars(hard),
        paraphrases=captions(size, CONTEXT - 3, random),
        paraphrase_valid=torch.tensor([True, False, True, True, True, True][:size]),
        labels=labels,
    )


def masked_batch() -> MaskedBatch:
    """With masks of its own, the pairs and hard negatives of `hard_batch`."""
    masks, hard = tiny_batch(6, length=CONTEXT - 4), vars(hard_batch(kinds=2))
    return MaskedBatch(**hard, text_mask=masks.text_mask, patch_mask=masks.patch_mask)


class Case(NamedTuple):
    """An objective under settings, in which {t5} is the folder of a T5, with a batch of 6 pairs."""

    settings: list[str]
    batch: Callable[[], Batch]


CASES = {
    "fsc": Case(["objective=fsc", "fsc.negatives=2"], hard_batch),
    "c2lip": Case(["objective=c2lip", "c2lip.xac=0.5"], phrase_batch),
    "c2lip, in boxes": Case(
        ["objective=c2lip", "c2lip.xac=0.5", "c2lip.boxes=true"], lambda: phrase_batch(boxes=True)
    ),
    "csclip": Case(["objective=csclip"], unit_batch),
    "csclip, as released": Case(
        ["objective=csclip", "csclip.reference=true", "csclip.duplicate_negatives=true"], unit_batch
    ),
    "read": Case(["objective=read", "read.decoder={t5}"], sibling_batch),
    "degla": Case(
        ["objective=degla", "degla.negatives=2", "distill.weight=0.005"], lambda: hard_batch(kinds=2)
    ),
    "csclip, taught": Case(["objective=csclip", "distill.weight=0.01", "distill.teacher=frozen"], unit_batch),
    **{
        f"{name}, by a sigmoid": Case([f"objective={name}", "contrast=sigmoid", *more], batch)
        for name, more, batch in (
            ("fsc", ["fsc.negatives=2"], hard_batch),
            ("csclip", [], unit_batch),
            ("degla", ["degla.negatives=2", "degla.text_grounded=0"], lambda: hard_batch(kinds=2)),
        )
    },
    "macco, by a sigmoid, taught": Case(
        ["contrast=sigmoid", "distill.weight=0.01", "method.negatives=2", "method.heads=2"], masked_batch
    ),
    "c2lip, as released": Case(["objective=c2lip", "c2lip.duplicate_negatives=true"], phrase_batch),
}
