"""The order of an epoch: a function of (seed, epoch) that any position can be asked of."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

WINDOW: Final = 16_384  # samples that are shuffled together; they come from pieces all over the store


@dataclass(frozen=True)
class Window:
    """Some pieces whose samples stand mixed at the positions [start, start + len(order)) of the epoch."""

    start: int
    pieces: NDArray[np.int64]
    order: NDArray[np.int64]  # position start + k holds the order[k]-th sample of the pieces, counted through


class Epoch:
    """All pieces in random order, cut into windows of at least WINDOW samples; the samples of each in random order.

    Takes memory for one number a piece, and one a sample of the windows in use.
    """

    def __init__(self, starts: NDArray[np.int64], seed: int, epoch: int, window: int = WINDOW) -> None:
        self._key = (seed, epoch)
        counts = np.diff(starts)
        self._pieces = np.random.default_rng((*self._key, 0)).permutation(len(counts))
        ends = np.cumsum(counts[self._pieces])
        number = (ends - counts[self._pieces]) // window
        self._first = np.flatnonzero(np.diff(number, prepend=-1))  # first piece of each window
        self._starts = np.append((ends - counts[self._pieces])[self._first], ends[-1])
        self.window = lru_cache(maxsize=4)(self._window)

    def number(self, position: int) -> int:
        """The window that holds a position."""
        return int(np.searchsorted(self._starts, position, side="right")) - 1

    def _window(self, number: int) -> Window:
        start, end = self._starts[number : number + 2]
        order = np.random.default_rng((*self._key, 1, number)).permutation(int(end - start))
        return Window(int(start), np.split(self._pieces, self._first[1:])[number], order)
