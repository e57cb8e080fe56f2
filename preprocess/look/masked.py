"""What masking draws from, and the share that it masks: of a sample of captions, by the paper's rule of masks."""

import itertools
import re
from collections import defaultdict
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from macco.pipeline import rectangle
from macco.pipeline.patches import any_of, touched
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION
from macco.pipeline.views import GROUNDS

SAMPLED: Final = 20_000  # captions whose words and patches are looked at
GRIDS: Final = (7, 14)  # patches along a side, as a ViT-B/32 and a ViT-B/16 have at 224 pixels
TOGETHER: Final = 20_000  # boxes whose patches are in memory at once: 4 MB

_CAPTIONS = f"""
    CREATE OR REPLACE TEMP TABLE looked_at AS
    SELECT sample_id, caption, row_number() OVER (ORDER BY hash(sample_id), sample_id) - 1 AS number
    FROM samples WHERE status = 'ok' ORDER BY number LIMIT {SAMPLED}"""
_CONCEPTS = """
    CREATE OR REPLACE TEMP TABLE looked_at_concepts AS
    SELECT number, kind, part, start, "end", concept_id, owner_id, subject_id, object_id, denied IS TRUE AS denied
    FROM concepts JOIN looked_at USING (sample_id)"""
_BOXES = """
    CREATE OR REPLACE TEMP TABLE looked_at_boxes AS
    SELECT number, concept_id, x0, y0, x1, y1 FROM boxes JOIN looked_at USING (sample_id)
    WHERE score >= {threshold!r}"""
# What is drawn at once: the attributes of an object, whose boxes are its, or a relation with the boxes of both ends.
_PHRASES = f"""
    SELECT p.number, dense_rank() OVER (ORDER BY p.number, phrase) - 1 AS phrase, x0, y0, x1, y1
    FROM (SELECT DISTINCT number, coalesce(owner_id, concept_id) AS phrase, unnest({GROUNDS}) AS grounds
          FROM looked_at_concepts WHERE part = 0 AND kind IN ('{ATTRIBUTE}', '{RELATION}') AND NOT denied) p
    JOIN looked_at_boxes b ON b.concept_id = p.grounds ORDER BY phrase"""


def masking(connection: duckdb.DuckDBPyConnection, threshold: float, grid: int) -> dict[str, Any]:
    """Shares of a caption's words and of its image's grid x grid patches; means over at most SAMPLED usable captions.

    words: those in concepts, by kind; patches: those that boxes of the caption's objects touch. Both are what masking
    draws from. masked: what of them training masks by the paper's rule, on average: the words of all attributes and
    relations that are not denied, and the patches of one phrase with boxes, drawn anew each time, or now and then of
    a rectangle; of captions and images that are not cut.
    """
    for sql in (_CAPTIONS, _CONCEPTS, _BOXES.format(threshold=threshold)):
        connection.execute(sql)
    captions = [
        text for (text,) in connection.execute("SELECT caption FROM looked_at ORDER BY number").fetchall()
    ]
    spans = defaultdict(list)
    for number, kind, denied, start, end in connection.execute(
        'SELECT number, kind, denied, start, "end" FROM looked_at_concepts'
    ).fetchall():
        spans[number].append((kind, denied, start, end))
    words = [_words(caption, spans[number]) for number, caption in enumerate(captions)]
    boxes = connection.execute(
        "SELECT number, number AS phrase, x0, y0, x1, y1 FROM looked_at_boxes ORDER BY number"
    )
    touching = _shares(boxes.fetchnumpy(), grid)
    phrases = connection.execute(_PHRASES).fetchnumpy()
    count = max(len(captions), 1)

    def mean(total: float) -> float | None:
        return round(float(total) / count, 6) if captions else None

    def masked(side: int) -> float | None:
        share = _by_caption(_shares(phrases, side), phrases)
        by_boxes = (1 - rectangle.CHANCE) * share.sum() / count
        return round(float(by_boxes + rectangle.CHANCE * _rectangle(side)), 6) if captions else None

    return {
        "captions": len(captions),
        "patches_a_side": grid,
        "words": {
            kind: mean(sum(share[kind] for share in words)) for kind in ("any", OBJECT, ATTRIBUTE, RELATION)
        },
        "patches": mean(touching.sum()),
        "masked": {
            "words": mean(sum(share["masked"] for share in words)),
            "patches": [{"patches_a_side": side, "share": masked(side)} for side in GRIDS],
            "rectangle": {"chance": rectangle.CHANCE, "share": rectangle.SHARE},
            "captions_with_a_phrase": mean(len(np.unique(phrases["number"]))),
        },
    }


def _words(caption: str, spans: list[tuple[str, bool, int, int]]) -> dict[str, float]:
    """The share of a caption's words, what stands between white space, that share a character with a span: of any kind,
    of each, and of those that are masked."""
    found = [match.span() for match in re.finditer(r"\S+", caption)]
    hit: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for kind, denied, start, end in spans:
        touching = {(first, last) for first, last in found if first < end and start < last}
        for name in ("any", kind, *(["masked"] if kind != OBJECT and not denied else [])):
            hit[name] |= touching
    return {
        name: len(hit[name]) / max(len(found), 1) for name in ("any", OBJECT, ATTRIBUTE, RELATION, "masked")
    }


def _shares(boxes: dict[str, NDArray[Any]], grid: int) -> NDArray[np.float64]:
    """The share of the patches that any box of each phrase touches, [phrases]; boxes are in the order of phrases."""
    phrase = boxes["phrase"].astype(np.int64)
    found = np.zeros(int(phrase[-1]) + 1 if len(phrase) else 0)
    cuts = np.unique(np.append(np.searchsorted(phrase, phrase[::TOGETHER]), len(phrase)))
    for start, end in itertools.pairwise(cuts):
        own, first, last = phrase[start:end], int(phrase[start]), int(phrase[end - 1])
        x0, y0, x1, y1 = (boxes[name][start:end].astype(float) * grid for name in ("x0", "y0", "x1", "y1"))
        hit = touched(x0, y0, x1, y1, grid)
        found[first : last + 1] = any_of(hit, own - first, last + 1 - first).mean((1, 2))
    return found


def _by_caption(shares: NDArray[np.float64], phrases: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The mean over the phrases of each caption that has any."""
    _, first = np.unique(phrases["phrase"], return_index=True)
    _, caption, sizes = np.unique(phrases["number"][first], return_inverse=True, return_counts=True)
    return np.bincount(caption, shares) / sizes if len(shares) else shares


def _rectangle(grid: int) -> float:
    """The share of the patches that the rectangle masks, on average."""
    tall = rectangle.heights(grid, rectangle.SHARE)
    return (
        sum(height * rectangle.width(height, grid, rectangle.SHARE) for height in tall) / len(tall) / grid**2
    )
