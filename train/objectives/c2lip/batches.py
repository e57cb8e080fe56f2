"""Pairs with the phrases of their captions: the store's objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from macco.pipeline.errors import UserError
from macco.pipeline.schema import OBJECT
from macco.train.data.batch import Batch
from macco.train.data.masks import patches
from macco.train.data.recipe import Recipe, number
from macco.train.data.rows import Sample
from macco.train.data.texts import TextSet


@dataclass(frozen=True, kw_only=True)
class PhraseBatch(Batch):
    """B image-caption pairs with at least one phrase each."""

    phrases: TextSet


@dataclass(frozen=True, kw_only=True)
class PhrasePairs(Recipe):
    """Crops, captions, and each caption's distinct phrases; one without any is its own phrase."""

    patch_size: int
    boxes: bool  # phrases come with the patches that their boxes touch

    def __post_init__(self) -> None:
        if self.boxes and self.image_size % self.patch_size:
            raise UserError(f"patches of {self.patch_size} pixels do not divide images of {self.image_size}")

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        image, crop = self.crop(sample, random)
        caption = self.tokenize(sample.caption).ids
        found: dict[bytes, tuple[Any, list[NDArray[np.float32]]]] = {}
        for concept in sample.concepts:
            if concept.kind == OBJECT:
                text = " ".join(sample.caption[start:end] for start, end in concept.spans)
                ids = self.tokenize(text).ids
                found.setdefault(ids.tobytes(), (ids, []))[1].append(concept.boxes)
        phrases = [*found.values()] or [(caption, list[NDArray[np.float32]]())]
        places = [(boxes, crop) for _, boxes in phrases]
        return (sample.id, sample.image), image, caption, [ids for ids, _ in phrases], places

    def collate(self, made: list[Any]) -> PhraseBatch:
        names, images, tokens, phrases, places = zip(*made, strict=True)
        within = None
        if self.boxes:
            boxes, crops = zip(*(one for own in places for one in own), strict=True)
            touched = patches(boxes, crops, self.image_size // self.patch_size)
            touched[~touched.any(1)] = True  # a phrase whose boxes touch none has all
            within = torch.from_numpy(touched)
        return PhraseBatch(
            **self.pairs(names, images, tokens, [[]] * len(made)),
            phrases=TextSet.of(phrases, self.pad, number, within),
        )
