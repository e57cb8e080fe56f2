"""Collectives over ranks; each is the identity where torch.distributed is not initialised.

The model is not wrapped in DistributedDataParallel: one averaging of the gradients after the last backward is
as simple with frozen towers, cached features and accumulation as without.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET = 64 * 2**20  # bytes of gradients per collective


def world() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This rank, 0-based."""
    return dist.get_rank() if world() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every rank's loss depends on these features: their gradients add up.
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total.chunk(world())[rank()]


def gather(x: Tensor) -> Tensor:
    """[b, ...] of every rank to [world * b, ...], in rank order; gradients return to the rank they belong to.

    b must be the same on all ranks.
    """
    if world() == 1:
        return x
    out: Tensor = _Gather.apply(x)
    return out


def gather_ragged(x: Tensor) -> Tensor:
    """As `gather`, where each rank may have another b, or none."""
    if world() == 1:
        return x
    counts: list[int] = gather(torch.tensor([len(x)], device=x.device)).tolist()
    most = max(counts)
    every = gather(torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])]))
    return torch.cat([every[most * i : most * i + count] for i, count in enumerate(counts)])


def mean(x: Tensor) -> Tensor:
    """Mean over ranks, without gradient."""
    x = x.detach().clone()
    if world() > 1:
        dist.all_reduce(x)
        x /= world()
    return x


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks; one that this rank does not have counts as zero."""
    if world() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for bucket in _buckets([p.grad for p in trained if p.grad is not None]):
        flat = torch.cat([grad.flatten() for grad in bucket])
        dist.all_reduce(flat)
        flat /= world()
        for grad, averaged in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            grad.copy_(averaged.view_as(grad))


def _buckets(grads: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for grad in grads:
        bucket.append(grad)
        if sum(g.nbytes for g in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextmanager
def first_alone() -> Iterator[bool]:
    """Whether this is rank 0, which does something alone; the others wait for it at the end of the block.

    For a day at most, where the backends' own patience is some minutes. All ranks enter together.
    """
    if world() == 1:
        yield True
        return
    group = dist.new_group(backend="gloo", timeout=timedelta(days=1))
    try:
        yield rank() == 0
        dist.barrier(group)  # type: ignore[arg-type]  # all ranks are of the group
    finally:
        dist.destroy_process_group(group)


def broadcast(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
