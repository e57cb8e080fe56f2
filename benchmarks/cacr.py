"""The congruence losses over a whole batch against the same, sample by sample: seconds forward and backward.

    python -m benchmarks.cacr                 L = 40, V = 36 and 196, batch 32, 12 heads, one CPU thread
    python -m benchmarks.cacr --device cuda
    python -m benchmarks.cacr --step          what CACR adds to a training step, against the matching loss alone

The loop is the formula, each sample's blocks cut from the batch's logits in turn, its heads together. It is also
timed over samples unbound once, which spares each cut a gradient of the whole batch's size; on a CPU such a loop
keeps to the caches and can be as fast as the batch, at V = 196 twice as fast. All must agree. Exit code 1 where the
batch is less than 3 times as fast as the loop.

A step is VisualBERT's (base size, random weights) forward and backward passes on the pairs and on one hard negative
caption of each, without an optimizer. Memory is the most that the step's tensors take beyond the parameters.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.train_step import PeakMemory
from macco.train.losses.congruence import Attention, congruence
from macco.train.losses.matching import triplet_ranking
from macco.train.objectives.joint.encoder import JointEncoder, Pairs

BATCH, HEADS, LENGTH, VOCABULARY = 32, 12, 40, 30522


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


def some_pairs(regions: int, width: int, device: str) -> Pairs:
    """Random captions of L words between two special tokens, with V regions."""
    place = torch.arange(LENGTH + 2).expand(BATCH, -1)
    corners = torch.rand(BATCH, regions, 2) / 2
    pairs = Pairs(
        tokens=torch.randint(1, VOCABULARY, place.shape),
        present=torch.ones_like(place, dtype=torch.bool),
        words=(place > 0) & (place <= LENGTH),
        features=torch.randn(BATCH, regions, width),
        boxes=torch.cat([corners, corners + 0.4], -1),
        regions=torch.ones(BATCH, regions, dtype=torch.bool),
    )
    return Pairs(**{name: value.to(device) for name, value in vars(pairs).items()})


def share_of_step(regions: int, repeats: int, device: str, layers: int) -> None:
    """Print the time and memory of a step with matching alone, and with CACR too."""
    model = JointEncoder.random(512, VOCABULARY, num_hidden_layers=layers).to(device)
    pairs = some_pairs(regions, 512, device)
    wrong = replace(pairs, tokens=pairs.tokens.flip(1))

    def matching() -> None:
        loss = triplet_ranking(model(pairs), model(wrong)[:, None])
        torch.autograd.backward(loss)

    def with_cacr() -> None:
        scores, attention = model.with_attention(pairs)
        loss = triplet_ranking(scores, model(wrong)[:, None]) + congruence(attention).mean()
        torch.autograd.backward(loss)

    ways = (matching, with_cacr)
    matching()  # gradients exist from here on
    memory = [peak(way, device) for way in ways]
    taken = seconds(list(ways), repeats, device)
    print(
        f"L {LENGTH}, V {regions}, {layers} layers: matching {taken[0]:.3f} s, {memory[0] / 2**20:.0f} MiB; "
        f"with CACR {taken[1]:.3f} s ({taken[1] / taken[0] - 1:+.1%}), "
        f"{memory[1] / 2**20:.0f} MiB ({memory[1] / memory[0] - 1:+.1%})"
    )


def peak(way: Callable[[], None], device: str) -> int:
    """The most bytes that are alive at once beyond those that were before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return torch.cuda.max_memory_allocated() - before
    with PeakMemory() as memory:
        way()
    return int(memory.peak)


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=5, help="timed steps after the one that warms up")
    parser.add_argument("--step", action="store_true", help="measure whole steps instead")
    parser.add_argument("--layers", type=int, default=12, help="of the encoder, for --step")
    parser.add_argument("--regions", type=int, nargs="+", default=[36, 196], help="V")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if args.step:
        for regions in args.regions:
            share_of_step(regions, args.repeats, args.device, args.layers)
        return 0
    return 0 if min([compare(v, args.repeats, args.device) for v in args.regions]) >= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
