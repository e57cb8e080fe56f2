"""What of an index a filter leaves: which images, in which order, and how many there are of what."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from macco.pipeline.page.filter import LEVELS, Filter
from macco.pipeline.page.index import KINDS, SPLITS, STATUSES, Index, Mask
from macco.pipeline.schema import OBJECT

Met = Callable[
    [str, str], Mask
]  # ("tag", its name) or ("where", a condition): which images, at least so many


T = TypeVar("T")


class once(Generic[T]):  # noqa: N801
    """functools.cached_property without its lock: before Python 3.12 that is one for all instances of a class."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    def __get__(self, one: object, kind: type) -> T:
        found = one.__dict__[self._make.__name__] = self._make(one)
        return found


class Chosen:
    """The images of an index that meet a filter."""

    def __init__(self, index: Index, filter: Filter, met: Met) -> None:
        self.index = index
        self.filter = filter
        self._met = met

    @once
    def mask(self) -> Mask:
        """Which images are shown: [images]."""
        if self._terms is None and self.filter.score is None:
            return self._images
        mask = np.zeros(len(self.index), np.bool_)
        mask[self.index.pair_image[self._pairs]] = True
        return mask

    @once
    def order(self) -> NDArray[np.int32]:
        """Their numbers, in the filter's order."""
        index, shown = self.index, np.flatnonzero(self.mask).astype(np.int32)
        if self.filter.sort == "random":
            # Drawn for all images, so that a filter leaves the order of the rest as it was.
            drawn = np.random.default_rng(self.filter.seed).permutation(len(index)).astype(np.int32)
            return drawn[self.mask[drawn]]
        if self.filter.sort == "score":
            return shown[np.argsort(-self._best[shown], kind="stable")]
        if self.filter.sort == "captions":
            return shown[np.argsort(-index.captions[shown], kind="stable")]
        return shown

    def scores(self) -> dict[str, list[int] | None]:
        """For each threshold, how many images have such a box of such a concept, and how many boxes there are.

        Boxes are those of objects, None where the filter is about attributes or relations.
        """
        index, free = self.index, Chosen(self.index, replace(self.filter, score=None), self._met)
        levels = np.zeros(len(index), np.uint8)
        pairs = free._pairs
        np.maximum.at(levels, index.pair_image[pairs], index.pair_level[pairs])
        about = self.filter.kind or tuple(one.partition(":")[0] for one in self.filter.concept)
        boxes = None
        if set(about) <= {OBJECT}:
            boxes = _from(index.box_level[free._of(index.box_image, index.box_term)])
        return {"images": _from(levels), "boxes": boxes}

    def facets(self, tags: Iterable[str], like: str = "", top: int = 12) -> dict[str, Any]:
        """How many images each value of each facet would leave beside the other facets.

        like: only lemmas that hold this; `top` of the commonest, and those that are chosen.
        """
        index = self.index
        found: dict[str, Any] = {"total": int(self.mask.sum()), "of": len(index), "share": index.share}
        statuses = index.statuses[self._without("status").mask]
        found["status"] = {
            str(one): count for i, one in enumerate(STATUSES) if (count := int((statuses >> i & 1).sum()))
        }
        splits = np.bincount(index.splits[self._without("split").mask] + 1, minlength=len(SPLITS) + 1)
        found["split"] = {one: int(splits[i + 1]) for i, one in enumerate(SPLITS) if splits[i + 1]}
        for name, values in (("dataset", index.datasets), ("shard", index.shards)):
            mask = self._without(name).mask
            before = np.concatenate([[0], np.cumsum(mask)])[list(index.starts)]
            counts: dict[str, int] = {}
            for value, count in zip(values, np.diff(before).tolist(), strict=True):
                counts[value] = counts.get(value, 0) + count
            found[name] = counts
        without = self._without("tag").mask
        found["tag"] = {tag: int((without & self._met("tag", tag)[: len(index)]).sum()) for tag in tags}
        found["kind"] = self._without("kind")._kinds()
        found["concept"] = self._without("concept")._concepts(like, top, set(self.filter.concept))
        return found

    def _without(self, facet: str) -> "Chosen":
        if not getattr(self.filter, facet):
            return self
        none: dict[str, Any] = {facet: ()}
        return Chosen(self.index, replace(self.filter, **none), self._met)

    def _kinds(self) -> dict[str, int]:
        index, pairs = self.index, self._pairs
        kinds = np.array([KINDS.index(kind) for kind, _ in index.terms], np.int8)[index.pair_term[pairs]]
        found, images = {}, index.pair_image[pairs]
        for i, kind in enumerate(KINDS):
            seen = np.zeros(len(index), np.bool_)
            seen[images[kinds == i]] = True
            found[kind] = int(seen.sum())
        return found

    def _concepts(self, like: str, top: int, chosen: set[str]) -> list[dict[str, Any]]:
        index = self.index
        counts = np.bincount(index.pair_term[self._pairs], minlength=len(index.terms))
        rows: list[dict[str, Any]] = []
        for number in np.argsort(-counts, kind="stable").tolist():
            kind, lemma = index.terms[number]
            name = f"{kind}:{lemma}"
            if name in chosen or (len(rows) < top and counts[number] and like in lemma):
                rows.append({"name": name, "kind": kind, "lemma": lemma, "count": int(counts[number])})
        return sorted(rows, key=lambda row: row["name"] not in chosen)

    @once
    def _images(self) -> Mask:
        """The images that meet what is not about concepts."""
        index, filter = self.index, self.filter
        mask = np.ones(len(index), np.bool_)
        if filter.status:
            bits = sum(1 << STATUSES.index(one) for one in STATUSES if one in filter.status)
            mask &= (index.statuses & np.uint32(bits)) != 0
        if filter.split:
            mask &= np.isin(index.splits, [SPLITS.index(split) for split in filter.split])
        for values, wanted in ((index.datasets, filter.dataset), (index.shards, filter.shard)):
            if wanted:
                mask &= np.repeat([value in wanted for value in values], np.diff(index.starts)).astype(
                    np.bool_
                )
        if filter.tag:
            mask &= np.any([self._met("tag", tag)[: len(index)] for tag in filter.tag], axis=0)
        if filter.where.strip():
            mask &= self._met("where", filter.where)[: len(index)]
        return mask

    @once
    def _terms(self) -> Mask | None:
        """Which terms the filter is about; None for all."""
        filter = self.filter
        if not filter.kind and not filter.concept:
            return None
        kinds, concepts = set(filter.kind), set(filter.concept)
        return np.array(
            [
                (not kinds or kind in kinds) and (not concepts or f"{kind}:{lemma}" in concepts)
                for kind, lemma in self.index.terms
            ],
            np.bool_,
        )

    @once
    def _pairs(self) -> Any:
        """Which pairs of image and term meet all of the filter: a mask, or all of them."""
        found = self._of(self.index.pair_image, self.index.pair_term)
        if self.filter.score is not None:
            enough = self.index.pair_level > self.filter.score
            found = enough if isinstance(found, slice) else found & enough
        return found

    def _of(self, image: NDArray[np.int32], term: NDArray[np.int32]) -> Any:
        parts = [] if self._terms is None else [self._terms[term]]
        if not self._images.all():
            parts.append(self._images[image])
        return np.logical_and.reduce(parts) if parts else slice(None)

    @once
    def _best(self) -> NDArray[np.float32]:
        """The score that images are sorted by: that of the concepts that the filter is about."""
        index = self.index
        if self._terms is None:
            return index.scores
        best = np.full(len(index), -1, np.float32)
        np.maximum.at(best, index.pair_image[self._pairs], index.pair_score[self._pairs])
        return best


def _from(levels: NDArray[np.uint8]) -> list[int]:
    """How many are above each of the thresholds."""
    counts = np.bincount(levels, minlength=LEVELS + 1)
    return [int(count) for count in np.cumsum(counts[::-1])[::-1][1:]]
