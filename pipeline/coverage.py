"""How many of a store's objects have a box: whether the detector knows the images at all."""

from typing import Final, NamedTuple

import pyarrow.compute as pc

from macco.pipeline.schema import OBJECT
from macco.pipeline.store import Store

SHARDS: Final = 20  # looked at, evenly spread: a detector that knows nothing shows in these
LEAST: Final = 0.2  # share of objects with a box; one that knows the images finds most nouns that can be seen


class Coverage(NamedTuple):
    """Objects looked at, and those that have a box of a score."""

    objects: int
    grounded: int


def coverage(store: Store, threshold: float) -> Coverage:
    """Count in at most SHARDS committed shards; by Arrow, which a driver of Ray has loaded anyway."""
    shards = sorted(store.committed())
    objects = grounded = 0
    for shard in shards[:: -(-len(shards) // SHARDS) or 1]:
        concepts, boxes = store.table("concepts", shard), store.table("boxes", shard)
        asked = pc.and_(pc.equal(concepts["kind"], OBJECT), pc.equal(concepts["part"], 0))
        asked = pc.and_(asked, pc.invert(pc.fill_null(concepts["denied"], False)))
        found = boxes.filter(pc.greater_equal(boxes["score"], threshold))["concept_id"]
        ids = concepts.filter(asked)["concept_id"]
        objects += len(ids)
        grounded += pc.sum(pc.is_in(ids, found.combine_chunks())).as_py() or 0
    return Coverage(objects, grounded)


def few_boxes(
    store: Store, threshold: float, *, extracted: bool = False, without: str = "no object has a box"
) -> str | None:
    """A line that warns of few boxes, and says what to do; None where there are enough, or nothing to ground.

    extracted: it is the end of an extraction, where no boxes are what `none` asked for. without: what
    that means.
    """
    found = coverage(store, threshold)
    if not found.objects or found.grounded >= LEAST * found.objects:
        return None
    detector = store.made_with.get("detector")
    if detector == "none":
        return None if extracted else f"warning: the store was made without a detector: {without}"
    knows = (
        "the detector that comes with macco knows the drawn demo corpus alone"
        if detector == "tiny"
        else (
            f"the detector {detector} may not know such images"
            if detector and not detector.startswith("boxes:")
            else f"{detector or 'the imported file'} has few"
        )
    )
    return (
        f"warning: only {100 * found.grounded / found.objects:.1f} % of {found.objects:,} objects have a box of score "
        f"{threshold:g} or more: {knows}; see macco-prep models, and extract with another --detector into a new --out"
    )
