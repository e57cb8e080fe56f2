"""Training speed and memory of one step: ours against the authors'.

    python -m benchmarks.train_step                          ViT-B/32 in float32 on a core, batch 16 and 32
    python -m benchmarks.gpu                                 on a GPU

The authors' step is benchmarks/public_step.py, which says what it repeats. Both train the same weights, in turns, and
their CPU time is taken; that both compute the same losses where ours is told to pad as theirs does is checked first.
Weights and batches are random: speed does not depend on them, but on caption lengths (normal, 13.5 +- 2.5 tokens, as in
COCO), on masked words (3 per caption) and on masked patches (30 %, for one image in ten 75 %).
"""

import argparse
import math
import statistics
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.public_step import PublicStep
from macco.train.loop.optimizer import parameter_groups
from macco.train.objectives.macco.batch import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method


def random_batch(model: Macco, size: int, seed: int = 0) -> MaskedBatch:
    """A batch cut to its longest caption; its images lie where the model does."""
    random = torch.Generator().manual_seed(seed)
    lengths = (13.5 + 2.5 * torch.randn(size, generator=random)).round().int().clamp(6, 77)
    tokens = torch.zeros(size, int(lengths.max()), dtype=torch.long)
    text_mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, length in enumerate(lengths.tolist()):
        tokens[row, :length] = torch.randint(1, 49405, (length,), generator=random)
        tokens[row, 0], tokens[row, length - 1] = 49406, 49407
        text_mask[row, 1 + torch.randperm(length - 2, generator=random)[:3]] = True
    grid = model.image.grid
    share = torch.where(torch.rand(size, 1, generator=random) < 0.1, 0.75, 0.3)
    patch_mask = torch.rand(size, grid[0] * grid[1], generator=random) < share
    side = grid[0] * model.image.patch[0]
    few = torch.randn(
        min(size, 64), 3, side, side, generator=random
    )  # drawing them all takes longer than a step
    device = next(model.parameters()).device
    images = few.to(device)[torch.arange(size, device=device) % len(few)]
    return MaskedBatch(
        images=images,
        tokens=tokens,
        text_mask=text_mask,
        patch_mask=patch_mask,
        ids=[str(i) for i in range(size)],
    )


def fast(model: Macco, batch: MaskedBatch) -> Tensor:
    """The package's own step."""
    loss: Tensor = model(batch)["loss"]
    return loss


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of tensors made inside the context: the most alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self.seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage(), given)
        return out

    def _watch(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key, size = id(storage), storage.nbytes()
        if key in given or key in self.seen:
            return
        self.seen[key] = weakref.ref(storage, lambda _: self._free(key, size))
        self.alive += size
        self.peak = max(self.peak, self.alive)

    def _free(self, key: int, size: int) -> None:
        del self.seen[key]
        self.alive -= size


def activations(model: Macco, loss: Callable[[], Tensor]) -> int:
    """The peak bytes of a forward and backward pass beyond parameters, gradients and optimizer."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with PeakMemory() as memory:
        torch.autograd.backward(loss())
    return int(memory.peak)


def medians(steps: list[Callable[[], None]], repeats: int, device: str) -> list[float]:
    """Median seconds of each step, of CPU time where there is no GPU, taken in turns; one turn warms up."""
    times: list[list[float]] = [[] for _ in steps]
    clock = time.perf_counter if device == "cuda" else time.process_time
    for _ in range(repeats + 1):
        for step, taken in zip(steps, times, strict=True):
            start = clock()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(clock() - start)
    return [statistics.median(taken[1:]) for taken in times]


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, the best of ten: what the machine can reach."""
    size = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)

    return 2 * size**3 / min(medians([product], 1, device)[0] for _ in range(10))


def adamw(model: Macco) -> torch.optim.AdamW:
    """The released optimizer."""
    groups = parameter_groups(model, lr=5e-7, predictor_lr=1e-3, decay=0.2, predictor_decay=0.01)
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)


def training_step(
    model: Macco,
    loss: Callable[[], Tensor],
    precision: Any,
    optimizer: torch.optim.AdamW | None = None,
    fused: bool | None = True,
) -> Callable[[], None]:
    """Forward, backward and optimizer, one of its own where none is given; fused: as in torch.optim.AdamW."""
    optimizer = optimizer or adamw(model)

    def step() -> None:
        for group in optimizer.param_groups:
            group["fused"] = fused
        optimizer.zero_grad()
        with precision():
            total = loss()
        torch.autograd.backward(total)
        optimizer.step()
        model.clamp_scale()

    return step


def build(name: str, text_depth: int, image_depth: int, device: str) -> Macco:
    """An open_clip model by name, random weights, QuickGELU as OpenAI's."""
    clip = open_clip.create_model(name, force_quick_gelu=True)
    return Macco(clip, Method(text_depth=text_depth, image_depth=image_depth)).to(device)


def same_losses(model: Macco) -> bool:
    """Whether the authors' loss is ours under `method.reference`, which pads as theirs does."""
    batch, method = random_batch(model, 4), model.method
    public = PublicStep(model, batch)
    padded = replace(batch, tokens=public.tokens, text_mask=public.text_mask)
    model.method = replace(method, reference=True)
    with torch.no_grad():
        values = [fast(model, padded).item(), public().item()]
    model.method = method
    print(f"losses with padding {values[0]:.6f} and {values[1]:.6f}")
    return math.isclose(*values, rel_tol=1e-5)


def compare(sizes: list[int], repeats: int) -> bool:
    """ViT-B/32 on the CPU: both ways, in one run. Returns whether ours keeps its promises."""
    torch.set_num_threads(1)
    rate, kept = product_rate("cpu", torch.float32), True
    print(f"a core, matrix products {rate / 1e9:.0f} GFLOP/s of CPU time")
    for size in sizes:
        model = build("ViT-B-32", 2, 3, "cpu")
        batch = random_batch(model, size)
        kept &= same_losses(model)
        ways: dict[str, Callable[[], Tensor]] = {
            "ours": partial(fast, model, batch),
            "the authors'": PublicStep(model, batch),
        }
        flops, memory = [], []
        for way in ways.values():
            with FlopCounterMode(display=False) as counter:
                memory.append(activations(model, way))
            flops.append(counter.get_total_flops() / size)
        model.zero_grad()
        optimizer = adamw(model)  # one, for its state is as large as twice the model
        fused = (True, None)
        steps = [
            training_step(model, way, nullcontext, optimizer, kind)
            for way, kind in zip(ways.values(), fused, strict=True)
        ]
        taken = medians(steps, repeats, "cpu")
        print(f"batch {size}, {batch.tokens.shape[1]} tokens")
        for name, s, f, m in zip(ways, taken, flops, memory, strict=True):
            print(
                f"  {name:13} {size / s:6.2f} samples/s  {f / 1e9:6.1f} GFLOP/sample  "
                f"{f * size / s / rate:4.0%} of the product rate  {m / 2**20:6.0f} MiB activations"
            )
        speedup, memory_share = taken[1] / taken[0], memory[0] / memory[1]
        print(
            f"  {speedup:.2f} times the samples/s with {flops[1] / flops[0]:.2f} times fewer FLOPs, "
            f"{memory_share:.2f} times the activation memory"
        )
        kept &= speedup >= 1.65 and memory_share <= 0.5
    return kept


def main() -> int:
    """Exit code 1 where ours is under 1.65 times as fast, over half the memory, or computes another loss."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[], help="sizes (default 16 32)")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps after the one that warms up")
    args = parser.parse_args()
    torch.manual_seed(0)
    return 0 if compare(args.batch or [16, 32], args.repeats) else 1


if __name__ == "__main__":
    sys.exit(main())
