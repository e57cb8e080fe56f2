"""The rectangle of patches that the paper's rule masks at random, now and then, in place of boxes."""

from math import ceil
from typing import Final

CHANCE: Final = 0.1  # how often
SHARE: Final = 0.75  # of the patches, about


def heights(grid: int, share: float) -> range:
    """The heights that one is drawn from, each as likely, in patches of a grid x grid image."""
    return range(max(1, ceil(share * grid * grid / grid)), grid + 1)


def width(height: int, grid: int, share: float) -> int:
    """The width that goes with a height."""
    return min(grid, round(share * grid * grid / height))
