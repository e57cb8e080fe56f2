"""ARO's word-order distractors: four shuffles of a caption's words."""

import random
from collections.abc import Sequence
from typing import Final

_NOUNS: Final = {"NN", "NNS", "NNP", "NNPS"}
_ADJECTIVES: Final = {"JJ", "JJR", "JJS"}


def shuffles(
    words: Sequence[str], tags: Sequence[str], rng: random.Random, pieces: Sequence[str] | None = None
) -> list[str]:
    """The four distractors of a caption: nouns and adjectives (each among themselves); all other words;
    within trigrams; of trigrams. `tags` are Penn Treebank's. `pieces` are the words that trigrams are made of,
    where they are cut otherwise; None: `words`.
    """
    pieces = words if pieces is None else pieces
    nouns = [i for i, tag in enumerate(tags) if tag in _NOUNS]
    adjectives = [i for i, tag in enumerate(tags) if tag in _ADJECTIVES]
    others = sorted(set(range(len(words))) - {*nouns, *adjectives})
    trigrams = [list(pieces[i : i + 3]) for i in range(0, len(pieces), 3)]
    within = [word for trigram in trigrams for word in rng.sample(trigram, len(trigram))]
    moved = [word for trigram in rng.sample(trigrams, len(trigrams)) for word in trigram]
    swapped = _permuted(_permuted(words, nouns, rng), adjectives, rng)
    return [" ".join(option) for option in (swapped, _permuted(words, others, rng), within, moved)]


def _permuted(words: Sequence[str], places: Sequence[int], rng: random.Random) -> list[str]:
    result = list(words)
    for place, source in zip(places, rng.sample(list(places), len(places)), strict=True):
        result[place] = words[source]
    return result
