"""What a run costs is reckoned from the rates that were measured."""

from pathlib import Path

import pytest
import torch

from macco.train.layers import parse, resolve
from macco.train.results.bench import cached, plan, size, weight
from tests.support.drawn import drawn_store


def test_a_plan_is_of_the_slower_of_step_and_loader() -> None:
    config = resolve(parse(["epochs=5"]))
    told = plan(config, 720_000, {"step": 1000.0, "loader": 500.0})
    assert told == "3,600,000 samples of 720,000 pairs: 2.0 hours on this machine, by the loader"
    steps = resolve(parse(["steps=100", "data.batch_size=36"]))
    assert plan(steps, 720_000, {"step": 1.0}).endswith(": 1.0 hours on this machine, by the step")


def test_a_cache_is_weighed_by_the_store_s_images(tmp_path: Path) -> None:
    store = drawn_store(tmp_path, shards=1, images=4)  # of 80 x 60
    by_caption, full = cached(store, 256)
    assert full == 80 * 60 * 3
    assert 0 < by_caption <= 1
    assert cached(store, 30)[1] == pytest.approx(40 * 30 * 3)


def test_a_checkpoint_weighs_what_its_tensors_do() -> None:
    state = {"a": torch.zeros(10), "b": [{"c": torch.zeros(3, dtype=torch.int64)}, None, 1], "d": "text"}
    assert weight(state) == 40 + 24
    assert (size(4.2e6), size(1.25e10)) == ("4.2 MB", "12.5 GB")
