"""The congruence losses over a whole batch against the same, sample by sample: seconds forward and backward.

    python benchmarks/cacr.py                 L = 40, V = 36 and 196, batch 32, 12 heads, one CPU thread
    python benchmarks/cacr.py --device cuda

The loop is the formula, each sample's blocks cut from the batch's logits in turn, its heads together. It is also
timed over samples unbound once, which spares each cut a gradient of the whole batch's size; on a CPU such a loop
keeps to the caches and can be as fast as the batch. All must agree. Exit code 1 where the batch is less than 3
times as fast as the loop.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from train.losses.congruence import Attention, congruence

BATCH, HEADS, LENGTH = 32, 12, 40


def whole(logits: Tensor, text: Tensor, image: Tensor) -> Tensor:
    """CACR of the batch in direction L, the package's own."""
    return congruence(Attention.joint(logits, text, image)).mean()


def loop(logits: Tensor, text: Tensor, image: Tensor) -> Tensor:
    """The same, sample by sample."""
    return over(lambda i: logits[i], text, image)


def unbound(logits: Tensor, text: Tensor, image: Tensor) -> Tensor:
    """The same with the samples unbound beforehand."""
    return over(logits.unbind().__getitem__, text, image)


def over(sample: Callable[[int], Tensor], text: Tensor, image: Tensor) -> Tensor:
    """CACR in direction L of logits [h, L + V, L + V], one sample after the other."""
    total, lengths = (
        torch.zeros((), device=text.device),
        zip(text.sum(1).tolist(), image.sum(1).tolist(), strict=True),
    )
    first = text.shape[1]
    for i, (n, m) in enumerate(lengths):
        own = sample(i)[:, :n, :n].softmax(-1).mean(0)
        other = sample(i)[:, first : first + m, first : first + m].softmax(-1).mean(0)
        across = sample(i)[:, :n, first : first + m].softmax(-1).mean(0).detach()
        carried = across @ other @ across.T
        gap = carried.softmax(-1) - own.softmax(-1)
        total = total + (gap * (carried - own)).sum(-1).mean()
    return total / len(text)


def seconds(ways: list[Callable[[], object]], repeats: int, device: str) -> list[float]:
    """Median seconds of each, taken in turns so that a busy machine is as busy for all; one turn warms up."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats + 1):
        for way, times in zip(ways, taken, strict=True):
            start = time.perf_counter()
            way()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in taken]


def compare(regions: int, repeats: int, device: str) -> float:
    """How many times as fast the batch is, with V regions."""
    text = torch.ones(BATCH, LENGTH, dtype=torch.bool, device=device)
    image = torch.ones(BATCH, regions, dtype=torch.bool, device=device)
    logits = torch.randn(BATCH, HEADS, LENGTH + regions, LENGTH + regions, device=device, requires_grad=True)
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def step(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        value = loss(logits, text, image)
        found[loss.__name__] = value.detach(), torch.autograd.grad(value, logits)[0]

    ways = (whole, loop, unbound)
    taken = seconds([partial(step, way) for way in ways], repeats, device)
    for way in ways[1:]:
        torch.testing.assert_close(found["whole"], found[way.__name__], rtol=1e-3, atol=1e-8)
    shown = ", ".join(f"{way.__name__} {t * 1e3:.1f} ms" for way, t in zip(ways, taken, strict=True))
    print(f"L {LENGTH}, V {regions}: {shown}; {taken[1] / taken[0]:.1f} times as fast as the loop")
    return taken[1] / taken[0]


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=5, help="timed steps after the one that warms up")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return 0 if min([compare(v, args.repeats, args.device) for v in (36, 196)]) >= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
