"""Memory of batches that nobody holds any more, for the next ones: the system gives it slower than we fill it."""

from collections.abc import Sequence
from math import prod
from typing import Final
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

KEPT: Final = 4  # arrays: of crops on the device a batch has two, and the one before, too
SMALL: Final = 2**20  # bytes: less is had at once
SPARE: Final = 1.125  # the next batch's crops may be somewhat larger

_free: list[NDArray[np.uint8]] = []


def room(shape: Sequence[int]) -> NDArray[np.uint8]:
    """An array of any content. Its place is another's once nothing holds it, or what was made of it without a copy."""
    size = prod(shape)
    if size < SMALL:
        return np.empty(shape, np.uint8)
    fits = [number for number, place in enumerate(_free) if len(place) >= size]
    if fits:
        place = _free.pop(min(fits, key=lambda number: len(_free[number])))
    else:
        del _free[: max(0, len(_free) - KEPT + 1)]  # those that were let go first are too small by now
        place = np.empty(int(size * SPARE), np.uint8)
    # Views of views name as their base the array at the bottom, so it is this one that has to be let go: over a buffer,
    # for an array over `place` itself would be passed over.
    whole = np.frombuffer(place.data, np.uint8, size)
    finalize(whole, _put_back, place).atexit = False
    found: NDArray[np.uint8] = whole.reshape(shape)
    return found


def _put_back(place: NDArray[np.uint8]) -> None:
    if len(_free) < KEPT:  # other threads put back, too: nothing else is done here
        _free.append(place)
