"""What a run costs is reckoned from the rates that were measured."""

from macco.train.layers import parse, resolve
from macco.train.results.bench import plan


def test_a_plan_is_of_the_slower_of_step_and_loader() -> None:
    config = resolve(parse(["epochs=5"]))
    told = plan(config, 720_000, {"step": 1000.0, "loader": 500.0})
    assert told == "3,600,000 samples of 720,000 pairs: 2.0 hours on this machine, by the loader"
    steps = resolve(parse(["steps=100", "data.batch_size=36"]))
    assert plan(steps, 720_000, {"step": 1.0}).endswith(": 1.0 hours on this machine, by the step")
