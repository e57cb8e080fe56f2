"""Pairs with a foil of the caption, and units of it with foils of their own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from macco.pipeline.schema import ENTITY
from macco.pipeline.tokens import Tokenize
from macco.train.data.batch import Batch
from macco.train.data.recipe import Recipe, number
from macco.train.data.rows import Sample, Unit

Said = tuple[str, str | None]  # a text, and its foil


@dataclass(frozen=True, kw_only=True)
class UnitBatch(Batch):
    """B image-caption pairs with N units each; `negatives` are [B, 1, L'], the caption's foil."""

    units: Tensor  # [B, N, L] int64: token ids
    unit_foils: Tensor  # [B, N, L] int64
    unit_valid: Tensor  # [B, N] bool: which units exist
    foil_valid: Tensor  # [B, N] bool: which of their foils exist
    unit_ids: Tensor  # [B, N] int64: equal where units are; where there is none, the caption's
    entities: Tensor  # [B] int64: how many the caption has


@dataclass(frozen=True, kw_only=True)
class UnitPairs(Recipe):
    """Crops and captions, a foil of the caption, and units drawn of what it says."""

    slots: int

    @property
    def reads_units(self) -> bool:
        return self.slots > 0

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        image, _ = self.crop(sample, random)
        caption = self.tokenize(sample.caption).ids
        made = [text for text in sample.negatives if text is not None]
        foil = self.tokenize(made[int(random.integers(len(made)))]).ids if made else None
        said = [_ids(one, self.tokenize) for one in draw_units(sample.units, self.slots, random)]
        entities = sum(unit.kind == ENTITY for unit in sample.units)
        return (sample.id, sample.image), image, caption, [foil], said, entities

    def collate(self, made: list[Any]) -> UnitBatch:
        names, images, tokens, foils, said, entities = zip(*made, strict=True)
        pairs = self.pairs(names, images, tokens, foils)
        shape = (len(made), self.slots)
        # Where there is none, the caption stands, and does not count.
        texts = [[*own, *[(None, None)] * (self.slots - len(own))] for own in said]
        flat = [(caption, *one) for caption, own in zip(tokens, texts, strict=True) for one in own]
        units = [caption if text is None else text for caption, text, _ in flat]
        against = [caption if foil is None else foil for caption, _, foil in flat]
        both = self.pad([*units, *against]) if flat else torch.zeros(0, 1, dtype=torch.long)
        return UnitBatch(
            **pairs,
            units=both[: len(flat)].view(*shape, -1) if flat else both.view(*shape, 1),
            unit_foils=both[len(flat) :].view(*shape, -1) if flat else both.view(*shape, 1),
            unit_valid=torch.tensor([text is not None for _, text, _ in flat], dtype=torch.bool).view(shape),
            foil_valid=torch.tensor([foil is not None for _, _, foil in flat], dtype=torch.bool).view(shape),
            unit_ids=torch.tensor([number(one) for one in units], dtype=torch.long).view(shape),
            entities=torch.tensor(entities),
        )


def _ids(said: Said, tokenize: Tokenize) -> tuple[Any, Any]:
    text, foil = said
    return tokenize(text).ids, None if foil is None else tokenize(foil).ids


def draw_units(units: list[Unit], count: int, random: np.random.Generator) -> list[Said]:
    """So many of a caption's units, each with a foil drawn of its own: relations first, then entities.

    Where there are fewer, they come again, perhaps with another foil; of none there are none. Half the time an entity
    is joined with another of the caption, in random order.
    """
    entities = [unit for unit in units if unit.kind == ENTITY]
    relations = [unit for unit in units if unit.kind != ENTITY]
    order = [relations[i] for i in random.permutation(len(relations))]
    order += [entities[i] for i in random.permutation(len(entities))]
    found: list[Said] = []
    for slot in range(count if order else 0):
        unit = order[slot % len(order)]
        foil = unit.foils[int(random.integers(len(unit.foils)))] if unit.foils else None
        others = [other for other in entities if other.text != unit.text]
        if unit.kind == ENTITY and others and random.random() < 0.5:
            other = others[int(random.integers(len(others)))].text
            before = random.random() < 0.5
            text, foil = (
                None if one is None else f"{other} and {one}" if before else f"{one} and {other}"
                for one in (unit.text, foil)
            )
            assert text is not None
            found.append((text, foil))
        else:
            found.append((unit.text, foil))
    return found
