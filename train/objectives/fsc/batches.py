"""Pairs with hard negatives: the store's, and the caption's words shuffled."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from macco.train.data.recipe import Pairs
from macco.train.data.rows import Sample

PAIR = 2  # words that stay together


@dataclass(frozen=True, kw_only=True)
class HardPairs(Pairs):
    """Pairs with one hard negative more: the caption's words shuffled."""

    shuffle: bool

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        names, image, tokens, hard = super().make(sample, random)
        if self.shuffle:
            text = shuffled(sample.caption, random)
            hard = [*hard, None if text is None else self.tokenize(text).ids]
        return names, image, tokens, hard


def shuffled(caption: str, random: np.random.Generator) -> str | None:
    """The caption with its pairs of words in another order; None where that says the same."""
    words = caption.split()
    pairs = [words[i : i + PAIR] for i in range(0, len(words), PAIR)]
    order = random.permutation(len(pairs))
    text = " ".join(word for i in order for word in pairs[i])
    return None if text == " ".join(words) else text
