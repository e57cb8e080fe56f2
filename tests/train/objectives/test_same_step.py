"""Micro-batches and ranks change nothing of a step, whatever the objective."""

import os
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from macco.train.distributed import ranks
from macco.train.layers import parse, resolve
from macco.train.loop.state import build_model
from macco.train.objectives.objective import Step, load_objective
from tests.support.commands import forked
from tests.support.objective_batches import CASES
from tests.support.tiny import gradients, tiny_clip
from tests.support.tiny_t5 import write_t5

HALF = 3
Found = tuple[dict[str, Tensor], dict[str, Tensor]]


def move(model: Any) -> None:
    """Away from its start, so that a teacher has something to say."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.clip.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)


def step(name: str, batch: Any, t5: str, micro: int = 0) -> Found:
    """Losses and gradients of a step, of all ranks."""
    settings = [each.replace("{t5}", t5) for each in CASES[name].settings]
    objective = load_objective(resolve(parse([*settings, f"micro_batch={micro}"])))
    model = build_model(objective, tiny_clip(), torch.device("cpu")).double()
    move(model)
    losses = objective.gradients(model, batch, Step(0, 1), nullcontext)
    ranks.average_gradients(model.parameters())
    return {loss: ranks.mean(value) for loss, value in losses.items()}, gradients(model)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_t5(tmp_path_factory.mktemp("t5"))


def assert_close(found: Found, expected: Found) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            gap = (one[name] - value).abs().max().item()
            assert gap <= 1e-9 * max(1e-3, value.abs().max().item()), name


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", CASES)
def test_micro_batches_change_nothing_but_memory(name: str, size: int, t5: str) -> None:
    whole = step(name, CASES[name].batch(), t5)
    assert all(value.isfinite() and value != 0 for value in whole[0].values())
    assert_close(step(name, CASES[name].batch(), t5, size), whole)


def worker(rank: int, port: int, folder: str, t5: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for name, case in CASES.items():
        half = list(case.batch().split(HALF))[rank]
        found[name] = [step(name, half, t5), step(name, half, t5, 2)]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.processes
def test_two_ranks_are_one(tmp_path: Path, t5: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forked(worker, port, str(tmp_path), t5)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, case in CASES.items():
            for each in found[name]:
                assert_close(each, step(name, case.batch(), t5))
