"""Two ranks, and micro-batches, give the gradients of one rank with the whole batch."""

import itertools
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from macco.train.distributed import ranks
from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.step import backward
from tests.support.commands import forked
from tests.support.tiny import gradients, tiny_batch, tiny_macco

BATCH = 6
MICRO = (3, 2)  # a rank's half at once, and in two parts


def whole_batch() -> MaskedBatch:
    """Sample 0 has no text mask and all other edge cases lie in the first half: the halves are unlike.

    Pairs 1 and 4 are of one image, 2 and 5 have one caption, and a negative of 0 is a caption of image 4.
    """
    batch = tiny_batch(BATCH)
    random = torch.Generator().manual_seed(9)
    negatives = torch.randint(1, 38, (BATCH, 2, 7), generator=random)
    negatives[..., -1] = 39
    valid = torch.rand(BATCH, 2, generator=random) < 0.6
    images, captions = torch.tensor([0, 1, 2, 3, 1, 5]), torch.tensor([10, 11, 12, 13, 14, 12])
    made = torch.arange(20, 20 + 2 * BATCH).view(BATCH, 2)
    made[0, 0] = 14
    ids = {"image_ids": images, "caption_ids": captions, "negative_ids": made}
    return replace(batch, negatives=negatives, negative_valid=valid, **ids)


def model_and_gradients(batches: list[MaskedBatch]) -> tuple[dict[str, Tensor], dict[str, Tensor], Macco]:
    model = tiny_macco(negatives=2, imc=0.2, cmr=0.2)
    losses = backward(model, batches)
    ranks.average_gradients(model.parameters())
    return losses, gradients(model), model


def worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    half = list(whole_batch().split(BATCH // 2))[rank]
    for size in MICRO:
        losses, grads, _ = model_and_gradients(list(half.split(size)))
        averaged = {name: ranks.mean(loss) for name, loss in losses.items()}
        torch.save((averaged, grads), f"{folder}/{rank}_{size}.pt")
    dist.destroy_process_group()


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        gap = (found[name] - value).abs().max().item()
        assert gap <= 1e-5 * max(1e-3, value.abs().max().item()), name


@pytest.mark.parametrize("size", [1, 2, 4])
def test_accumulation_sees_all_negatives(size: int) -> None:
    losses, grads, _ = model_and_gradients([whole_batch()])
    parts, part_grads, _ = model_and_gradients(list(whole_batch().split(size)))
    assert_close(parts, losses)
    assert_close(part_grads, grads)


@pytest.mark.processes
def test_two_ranks_are_one(tmp_path: Path) -> None:
    losses, grads, _ = model_and_gradients([whole_batch()])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forked(worker, port, str(tmp_path))
    for rank, size in itertools.product((0, 1), MICRO):
        found, found_grads = torch.load(tmp_path / f"{rank}_{size}.pt")
        assert_close(found, losses)
        assert_close(found_grads, grads)
