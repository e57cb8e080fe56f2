"""Training speed and memory of one step: the fast path against the straightforward one.

    python benchmarks/train_step.py                          ViT-B/32 in float32 on the CPU, batch 16 and 32
    python benchmarks/train_step.py --device cuda            B/32, B/16 and L/14 in bf16, fast path only

Straightforward means: 77 tokens, both heads at every position, every attention map kept. Both compute the same
losses of the same weights, which is checked. Weights and batches are random: speed does not depend on them, but
on caption lengths (normal, 13.5 +- 2.5 tokens, as in COCO), on masked words (3 per caption) and on masked patches
(30 %, for one image in ten 75 %).
"""

import argparse
import math
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from macco.train.data.slots import Slots
from macco.train.loop.optimizer import parameter_groups
from macco.train.losses.masked import patch_pixels
from macco.train.objectives.macco.batch import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method

GPU_MODELS = {
    "ViT-B-32": (256, 2, 3),
    "ViT-B-16": (128, 4, 6),
    "ViT-L-14": (48, 4, 6),
}  # batch, depths: as released


def random_batch(model: Macco, size: int, seed: int = 0) -> MaskedBatch:
    """A batch cut to its longest caption."""
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
    images = torch.randn(size, 3, side, side, generator=random)
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


def straightforward(model: Macco, batch: MaskedBatch) -> Tensor:
    """The same loss with heads at every position, captions padded to the context, attention maps kept."""
    pad = model.text.context - batch.tokens.shape[1]
    tokens, text_mask = F.pad(batch.tokens, (0, pad)), F.pad(batch.text_mask, (0, pad))
    everywhere = [Slots.of(torch.ones_like(mask)) for mask in (text_mask, batch.patch_mask)]
    batch = replace(
        batch, tokens=tokens, text_mask=text_mask, text_slots=everywhere[0], patch_slots=everywhere[1]
    )
    with kept_attention():
        encodings = model.encode(batch, batch.images)
        losses = model.contrastive(model.features(encodings))
        logits, rebuilt = model.words(batch, encodings), model.rebuilt(batch, encodings)
    words = F.cross_entropy(logits, tokens.flatten(), reduction="none").view_as(tokens)
    target = patch_pixels(batch.images, model.image.patch, batch.patch_slots)
    target = (target - target.mean(1, keepdim=True)) / (target.var(1, keepdim=True) + 1e-6).sqrt()
    pixels = (rebuilt - target).square().mean(1).view_as(batch.patch_mask)
    for name, error, mask in (("mlm", words, text_mask), ("mim", pixels, batch.patch_mask)):
        mean = (error * mask).sum(1) / mask.sum(1).clamp(min=1)
        losses[name] = mean.sum() / mask.any(1).sum()
    return model.weighted(losses)


@contextmanager
def kept_attention() -> Iterator[list[Tensor]]:
    """Attention by its formula, each map kept until the step ends."""
    maps: list[Tensor] = []
    functional: Any = F
    fused = functional.scaled_dot_product_attention

    def plain(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        maps.append(scores.softmax(-1))
        return maps[-1] @ v

    functional.scaled_dot_product_attention = plain
    try:
        yield maps
    finally:
        functional.scaled_dot_product_attention = fused


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


def value_and_activations(model: Macco, loss: Callable[[], Tensor]) -> tuple[float, int]:
    """The loss, and the peak bytes of its forward and backward pass beyond parameters, gradients and optimizer."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with PeakMemory() as memory:
        value = loss()
        torch.autograd.backward(value)
    return value.item(), int(memory.peak)


def medians(steps: list[Callable[[], None]], repeats: int, device: str) -> list[float]:
    """Median seconds of each step, taken in turns so that a busy machine is as busy for all; one turn warms up."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats + 1):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, the best of ten: what the machine can reach."""
    size = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)

    return 2 * size**3 / min(medians([product], 1, device)[0] for _ in range(10))


def training_step(model: Macco, loss: Callable[[], Tensor], precision: Any) -> Callable[[], None]:
    """Forward, backward and optimizer."""
    groups = parameter_groups(model, lr=5e-7, predictor_lr=1e-3, decay=0.2, predictor_decay=0.01)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def step() -> None:
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


def compare(sizes: list[int], repeats: int) -> bool:
    """ViT-B/32 on the CPU: both ways, in one run. Returns whether the fast path keeps its promises."""
    rate, kept = product_rate("cpu", torch.float32), True
    print(f"{torch.get_num_threads()} threads, matrix products {rate / 1e9:.0f} GFLOP/s")
    for size in sizes:
        model = build("ViT-B-32", 2, 3, "cpu")
        batch = random_batch(model, size)
        ways: list[Callable[[], Tensor]] = [partial(way, model, batch) for way in (fast, straightforward)]
        values, flops, memory = [], [], []
        for way in ways:
            with FlopCounterMode(display=False) as counter:
                value, peak = value_and_activations(model, way)
            values.append(value)
            memory.append(peak)
            flops.append(counter.get_total_flops() / size)
        model.zero_grad()
        taken = medians([training_step(model, way, nullcontext) for way in ways], repeats, "cpu")
        print(f"batch {size}, {batch.tokens.shape[1]} tokens, losses {values[0]:.6f} and {values[1]:.6f}")
        for name, s, f, m in zip(("fast", "straightforward"), taken, flops, memory, strict=True):
            print(
                f"  {name:16} {size / s:6.2f} samples/s  {f / 1e9:6.1f} GFLOP/sample  "
                f"{f * size / s / rate:4.0%} of the product rate  {m / 2**20:6.0f} MiB activations"
            )
        speedup, memory_share = taken[1] / taken[0], memory[0] / memory[1]
        print(f"  {speedup:.2f} times the samples/s, {memory_share:.2f} times the activation memory")
        kept &= speedup >= 1.6 and memory_share <= 0.5 and math.isclose(*values, rel_tol=1e-5)
    return kept


def throughput(names: list[str], repeats: int, device: str, compiled: bool, batch_size: int) -> None:
    """The fast path in bf16 autocast."""
    rate = product_rate(device, torch.bfloat16)
    print(f"matrix products {rate / 1e12:.1f} TFLOP/s in bf16")
    for name in names:
        size, text_depth, image_depth = GPU_MODELS[name]
        size = batch_size or size
        model = build(name, text_depth, image_depth, device)
        if compiled:
            model.compile_blocks()
        batch = random_batch(model, size).to(device)

        def precision() -> AbstractContextManager[None]:
            return torch.autocast(device, dtype=torch.bfloat16)

        loss = partial(fast, model, batch)

        with FlopCounterMode(display=False) as counter, precision():
            torch.autograd.backward(loss())
        model.zero_grad()
        (taken,) = medians([training_step(model, loss, precision)], repeats, device)
        flops = counter.get_total_flops()
        peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""
        print(
            f"{name} batch {size}: {size / taken:8.1f} samples/s, {flops / size / 1e9:.1f} GFLOP/sample, "
            f"{flops / taken / rate:.0%} of the product rate{peak}"
        )
        del model


def main() -> int:
    """Exit code 1 where the fast path is less than 1.6 times as fast, or needs more than half the memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[], help="sizes (default 16 32; CUDA: as released)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed steps after the one that warms up")
    parser.add_argument("--models", nargs="+", default=list(GPU_MODELS), choices=list(GPU_MODELS))
    parser.add_argument("--bf16", action="store_true", help="on the CPU: measure as on CUDA")
    parser.add_argument("--compile", action="store_true", help="compile the transformer blocks (bf16 only)")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.device == "cuda" or args.bf16:
        throughput(args.models, args.repeats, args.device, args.compile, args.batch[0] if args.batch else 0)
        return 0
    return 0 if compare(args.batch or [16, 32], args.repeats) else 1


if __name__ == "__main__":
    sys.exit(main())
