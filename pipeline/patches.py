"""Patches of an image, and which of them boxes touch: training masks these, the report counts them."""

import numpy as np
from numpy.typing import NDArray

Edges = NDArray[
    np.float64
]  # [N]: where boxes begin or end, in patches from the left or the top; may lie outside


def touched(x0: Edges, y0: Edges, x1: Edges, y1: Edges, grid: int) -> NDArray[np.bool_]:
    """Which of grid x grid patches share any area with each box, [N, grid, grid], rows first."""
    # Float32 edges that mean a patch's border must not reach over it.
    left, upper, right, lower = (np.round(edge.clip(0, grid), 5) for edge in (x0, y0, x1, y1))
    some = ((left < right) & (upper < lower))[:, None]
    columns = _between(left, right, grid) & some
    return _between(upper, lower, grid)[:, :, None] & columns[:, None]


def any_of(flags: NDArray[np.bool_], owner: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Of flags [n, ...], ordered by owner, those that any of an owner's have, [count, ...]."""
    found = np.zeros((count, *flags.shape[1:]), np.bool_)
    if len(owner):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        found[owner[first]] = np.logical_or.reduceat(flags, first)
    return found


def _between(start: Edges, end: Edges, grid: int) -> NDArray[np.bool_]:
    """Which of the cells 0..grid - 1 share any length with [start, end), [n, grid]."""
    cells = np.arange(grid)
    return (cells >= np.floor(start)[:, None]) & (cells < np.ceil(end)[:, None])
