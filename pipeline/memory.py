"""Memory that pictures come and go in."""

import ctypes
import sys
from functools import cache
from typing import Final

TRIM: Final = -1  # mallopt(3)'s names for numbers: M_TRIM_THRESHOLD
MMAP: Final = -3  # M_MMAP_THRESHOLD
KEPT: Final = 2**28  # bytes
LARGEST: Final = 2**25  # bytes: the most that glibc takes


@cache
def keep_freed() -> None:
    """Have this process keep what it frees, up to 256 MB, for what comes next.

    A decoded picture is large enough that glibc hands its memory back at once, and the system gives it again page by
    page, which takes a good part of the time that decoding does. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(TRIM, KEPT)
        mallopt(MMAP, LARGEST)
