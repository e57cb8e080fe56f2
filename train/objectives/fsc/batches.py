"""Pairs with hard negatives: the store's, and the caption's words shuffled."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from macco.train.data.batch import Batch
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Sample

PAIR = 2  # words that stay together


@dataclass(frozen=True, kw_only=True)
class HardPairs(Recipe):
    """Crops and captions, each with the hard negatives that it has."""

    shuffle: bool

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        image, _ = self.crop(sample, random)
        hard = self.hard_negatives(sample)
        if self.shuffle:
            text = shuffled(sample.caption, random)
            hard = [*hard, None if text is None else self.tokenize(text).ids]
        return (sample.id, sample.image), image, self.tokenize(sample.caption).ids, hard

    def collate(self, made: list[Any]) -> Batch:
        names, images, tokens, hard = zip(*made, strict=True)
        return Batch(**self.pairs(names, images, tokens, hard))


def shuffled(caption: str, random: np.random.Generator) -> str | None:
    """The caption with its pairs of words in another order; None where that says the same."""
    words = caption.split()
    pairs = [words[i : i + PAIR] for i in range(0, len(words), PAIR)]
    order = random.permutation(len(pairs))
    text = " ".join(word for i in order for word in pairs[i])
    return None if text == " ".join(words) else text
