"""Intervals and paired tests on means of yes-or-no units.

Resampling n such units with replacement gives a binomial count, so a bootstrap of a mean is drawn from the
binomial (a paired one from the multinomial) instead of being simulated unit by unit: the same distribution.
Units are resampled within each leaf of a figure: classes keep their sizes.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from macco.train.evaluation.judged import Mean

DRAWS: Final = 2000
Draws = NDArray[np.float64]


def bootstrap(mean: Mean, random: np.random.Generator, draws: int = DRAWS) -> Draws:
    """Draws of a figure, [draws]."""
    if mean.units is None:
        parts: Draws = np.mean([bootstrap(part, random, draws) for part in mean.parts], axis=0)
        return parts
    n = len(mean.units)
    return random.binomial(n, mean.units.mean(), draws) / n


def interval(mean: Mean, seed: int = 0) -> tuple[float, float]:
    """The bootstrap 95 % interval of a figure, (nan, nan) where the figure is undefined."""
    if np.isnan(mean.value):
        return float("nan"), float("nan")
    low, high = np.quantile(bootstrap(mean, np.random.default_rng(seed)), [0.025, 0.975])
    return float(low), float(high)


def paired_bootstrap(a: Mean, b: Mean, random: np.random.Generator, draws: int = DRAWS) -> Draws:
    """Draws of b - a, [draws], where both figures are of the same units in the same order."""
    if a.units is None or b.units is None:
        pairs = zip(a.parts, b.parts, strict=True)
        parts: Draws = np.mean([paired_bootstrap(x, y, random, draws) for x, y in pairs], axis=0)
        return parts
    n = len(a.units)
    gained, lost = int((b.units & ~a.units).sum()), int((a.units & ~b.units).sum())
    counts = random.multinomial(n, [gained / n, lost / n, (n - gained - lost) / n], draws)
    return (counts[:, 0] - counts[:, 1]) / n


def paired_p(draws: Draws) -> float:
    """Two-sided p of "no difference" from draws of a difference; never below 1 / draws."""
    share = min((draws <= 0).mean(), (draws >= 0).mean())
    return float(min(1.0, max(2 * share, 1 / len(draws))))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test: of the items that changed, are gains and losses equally likely?"""
    n = gained + lost
    if n == 0:
        return 1.0
    tail, term = 0, 1  # term runs through C(n, k)
    for k in range(min(gained, lost) + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return float(min(1.0, 2 * tail / 2**n))
