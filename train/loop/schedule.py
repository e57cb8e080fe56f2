"""The learning rate, as a function of the step alone: nothing to save, nothing that accumulation can shift."""

import math


def factor(step: int, warmup: int, total: int) -> float:
    """The share of the base rate at `step` (0-based) of `total`: a linear rise, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
