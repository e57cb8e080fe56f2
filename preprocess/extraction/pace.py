"""How long shards take, and from when on one that takes longer is taken to hang."""

import statistics
import time
from collections import deque

LEAST = 600.0  # seconds that every shard may take
TIMES = 20  # as long as half of the shards took, a shard may take
UNKNOWN = 6 * 3600.0  # seconds that a shard may take while none is done
NAP = 5.0  # seconds: a longer step of the clock is one in which this process did not run


class Pace:
    """A clock that stands still while this process does (stopped, or swapped out), and the shards' times by it."""

    def __init__(self, limit: float | None = None) -> None:
        """`limit` is in seconds: a shard that takes longer hangs; 0: none does; None: by the pace of the run."""
        self._limit = limit
        self._took: deque[float] = deque(maxlen=1000)
        self._last = time.monotonic()
        self.now = 0.0

    def tick(self) -> float:
        """Let time go on, call it often; return the seconds since the start."""
        last, self._last = self._last, time.monotonic()
        self.now += min(self._last - last, NAP)
        return self.now

    def done(self, seconds: float) -> None:
        """A shard took so long."""
        self._took.append(seconds)

    def limit(self) -> float:
        """The seconds after which a shard hangs."""
        if self._limit is not None:
            return self._limit or float("inf")
        return max(LEAST, TIMES * statistics.median(self._took)) if self._took else UNKNOWN
