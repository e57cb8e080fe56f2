"""What can be benchmarked: anything that gives a score to a picture and a caption."""

from collections.abc import Sequence
from itertools import combinations
from typing import Final, Protocol

import numpy as np

from macco.pipeline.schema import Status
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Bools, Floats

OK: Final = Status.OK
MISSING: Final = Status.MISSING_IMAGE
CORRUPT: Final = Status.IMAGE_CORRUPT
UNCAPTIONED: Final = Status.MISSING_CAPTION


class Scorer(Protocol):
    """A model as benchmarks see it. A joint encoder implements this; a dual encoder more: see DualEncoder."""

    def pairs(self, pictures: Sequence[Picture], captions: Sequence[str]) -> Floats:
        """Scores [n] of picture i with caption i; nan where the picture could not be read."""

    def text_pairs(self, left: Sequence[str], right: Sequence[str]) -> Floats | None:
        """Similarities [n] of caption pairs; None where the model has none."""

    def status(self, picture: Picture) -> str:
        """ "ok", or a short name of why a picture that was asked for could not be read."""


def score_items(
    scorer: Scorer, items: Sequence[Item], texts: bool
) -> tuple[Floats, Floats | None, Bools, list[str]]:
    """Score complete items of one shape: I pictures, C captions.

    Returns scores [N, I, C], caption similarities [N, C (C - 1) / 2] in the order of itertools.combinations
    (None unless asked for and there), which items are ok [N], and their statuses. Scores of an item
    that is not ok are nan.
    """
    shape = len(items), len(items[0].pictures), len(items[0].captions)
    pictures = [p for item in items for p in item.pictures for _ in item.captions]
    captions = [c for item in items for _ in item.pictures for c in item.texts]
    scores = scorer.pairs(pictures, captions).reshape(shape)
    statuses = [next((s for p in item.pictures if (s := scorer.status(p)) != OK), OK) for item in items]
    ok = np.array([status == OK for status in statuses])
    scores[~ok] = np.nan
    between = None
    if texts:
        both = [pair for item in items for pair in combinations(item.texts, 2)]
        between = scorer.text_pairs([left for left, _ in both], [right for _, right in both])
        between = None if between is None else between.reshape(len(items), -1)
    return scores, between, ok, statuses
