"""Pairs with another caption of their image, twice: one to be written, one to agree with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from macco.train.data.batch import Batch
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Sample
from macco.train.data.slots import Slots
from macco.train.objectives.read.decoder import IGNORED, Labels


@dataclass(frozen=True, kw_only=True)
class SiblingBatch(Batch):
    """B image-caption pairs, with other captions of their images where there are any."""

    paraphrases: Tensor  # [B, L'] int64: token ids of CLIP; the caption itself where there is none
    paraphrase_valid: Tensor  # [B] bool
    labels: Tensor  # [B, L''] int64: token ids of the decoder, -100 beyond; all -100 where there is none
    label_slots: Slots = field(default=None)  # type: ignore[assignment]  # made from labels where not given

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_slots is None:
            object.__setattr__(self, "label_slots", Slots.of(self.labels != IGNORED))


@dataclass(frozen=True, kw_only=True)
class SiblingPairs(Recipe):
    """Crops and captions, hard negatives, and captions that say the same."""

    labels: Labels | None  # None: no caption is to be written
    align: bool

    @property
    def reads_siblings(self) -> bool:
        return self.align or self.labels is not None

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        image, _ = self.crop(sample, random)
        caption = self.tokenize(sample.caption).ids
        paraphrase, label = None, list[int]()
        if others := sample.paraphrases or sample.siblings:
            if self.align:
                paraphrase = self.tokenize(others[int(random.integers(len(others)))]).ids
            if self.labels is not None:  # one of all captions of the image, its own perhaps
                all_of_image = [sample.caption, *(sample.siblings or sample.paraphrases)]
                label = self.labels(all_of_image[int(random.integers(len(all_of_image)))])
        hard = self.hard_negatives(sample)
        return (sample.id, sample.image), image, caption, hard, paraphrase, label

    def collate(self, made: list[Any]) -> SiblingBatch:
        names, images, tokens, hard, paraphrases, labels = zip(*made, strict=True)
        found = [own if one is None else one for own, one in zip(tokens, paraphrases, strict=True)]
        return SiblingBatch(
            **self.pairs(names, images, tokens, hard),
            paraphrases=self.pad(found),
            paraphrase_valid=torch.tensor([one is not None for one in paraphrases]),
            labels=Labels.padded([*labels]),
        )
