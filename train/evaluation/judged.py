"""Yes and no per item, and the means that benchmarks report of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Names = NDArray[Any]  # of str objects


@dataclass(frozen=True)
class Mean:
    """The mean of yes-or-no units, or of other means with equal weight.

    The structure is kept because an interval, and a paired test, need the units below a figure.
    """

    units: Bools | None = None
    parts: tuple["Mean", ...] = ()

    @property
    def value(self) -> float:
        """In 0..1; nan where a part has no unit, so that what is missing can never shift a figure."""
        values = self.units if self.units is not None else [part.value for part in self.parts]
        return float(np.mean(values)) if len(values) else float("nan")

    @property
    def count(self) -> int:
        """Units below this mean."""
        return len(self.units) if self.units is not None else sum(part.count for part in self.parts)


def mean_of(parts: Iterable[Mean]) -> Mean:
    """The mean of means, each with the same weight (macro)."""
    return Mean(parts=tuple(parts))


def joined(parts: Iterable[Mean]) -> Mean:
    """The mean over the units of several means, each unit with the same weight (micro)."""
    return Mean(
        np.concatenate([np.zeros(0, dtype=bool), *(part.units for part in parts if part.units is not None)])
    )


@dataclass(frozen=True)
class Judged:
    """All items of one benchmark, N rows. Rows whose images could not be read have `ok` false."""

    subset: Names
    name: Names
    category: Names
    ok: Bools
    right: dict[str, Bools]  # by criterion; meaningless where not ok

    def rows(self, subset: str | None = None, category: str | None = None) -> Bools:
        """Which rows belong to a subset and category, read or not."""
        chosen = np.ones(len(self.ok), dtype=bool)
        if subset is not None:
            chosen &= self.subset == subset
        if category is not None:
            chosen &= self.category == category
        return chosen

    def mean(self, subset: str | None = None, category: str | None = None, criterion: str = "right") -> Mean:
        """The share of right items among those read, of a subset and category (None: all)."""
        rows = self.rows(subset, category) & self.ok
        if not rows.any():  # then there may be no answer under the criterion at all
            return Mean(np.zeros(0, dtype=bool))
        return Mean(self.right[criterion][rows])

    def categories(self, subset: str | None = None, least: int = 1) -> list[str]:
        """Categories with at least `least` items in the files, whether or not their images could be read."""
        names, counts = np.unique(self.category[self.rows(subset)].astype(str), return_counts=True)
        return [str(name) for name, count in zip(names, counts, strict=True) if count >= least]
