"""The page of costs leaves no objective out."""

from benchmarks.objectives import ARMS, settings
from macco.train.config import OBJECTIVES


def test_every_objective_is_measured() -> None:
    assert {settings(name, []).objective for name in ARMS} == set(OBJECTIVES)
