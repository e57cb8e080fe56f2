"""Intervals and paired tests of figures."""

import numpy as np
import pytest

from macco.train.evaluation.judged import Mean, mean_of
from macco.train.evaluation.statistics import interval, mcnemar, paired_bootstrap, paired_p


def test_interval_is_the_bootstrap_of_the_units() -> None:
    random = np.random.default_rng(1)
    units = random.random(400) < 0.3
    low, high = interval(Mean(units))
    resampled = units[random.integers(0, 400, (4000, 400))].mean(1)
    assert (low, high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.01)
    macro = mean_of([Mean(units), Mean(np.ones(3, dtype=bool))])
    assert macro.value == pytest.approx((units.mean() + 1) / 2)
    assert np.subtract(*interval(macro)[::-1]) == pytest.approx((high - low) / 2, abs=0.01)
    assert np.isnan(interval(mean_of([Mean(units), Mean(units[:0])]))).all()


def test_mcnemar_is_exact() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0
    assert 0 < mcnemar(9000, 8000) < 1e-10


def test_paired_bootstrap_uses_the_pairing() -> None:
    a = np.arange(1000) % 2 == 0
    b = a.copy()
    b[1:40:2] = True  # 20 gains, no loss
    draws = paired_bootstrap(Mean(a), Mean(b), np.random.default_rng(0))
    assert draws.mean() == pytest.approx(0.02, abs=0.001)
    assert draws.std() == pytest.approx((0.02 * 0.98 / 1000) ** 0.5, rel=0.1)  # unpaired: five times that
    assert paired_p(draws) < 0.01
    assert paired_p(paired_bootstrap(Mean(a), Mean(a), np.random.default_rng(0))) == 1.0
