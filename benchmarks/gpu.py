"""One command for a GPU: what MACCO's step and the detectors do on it, and whether they compute the same there.

    python -m benchmarks.gpu [--models ViT-B-32 ViT-B-16 ViT-L-14] [--how compiled] [--batches 256 1024]
                             [--skip detectors] [--profile]
    python -m benchmarks.gpu --small                 the same code in small, on the CPU

Needs torch and open_clip_torch, and for the detectors transformers; nothing that reads stores. Weights and
batches are random, as in benchmarks/train_step.py. Exit code 1 where losses are not those of the CPU in float32
(1e-4, in bf16 1e-2), or a step makes the host wait. With --profile the kernels of a step are listed by their time.
"""

import argparse
import gc
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import open_clip
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train_step import fast, medians, product_rate, random_batch, training_step
from macco.train.clip.towers import embed_patches
from macco.train.data.uncut import Uncut
from macco.train.objectives.macco.batch import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method
from tests.support.syncs import Syncs

MODELS = {"ViT-B-32": (256, 2, 3), "ViT-B-16": (256, 4, 6), "ViT-L-14": (64, 4, 6)}  # first batch, depths
ARCHITECTURES = ("GroundingDino", "MMGroundingDino")  # LLMDet's is the second
SIZES = ((800, 1333), (640, 640))
WAYS = ("plain", "checkpointing", "compiled")  # with activations kept, made again, or in compiled blocks
SMALL = {"embed_dim": 64, "text_cfg": {"width": 64, "heads": 2, "layers": 2}}
SMALL["vision_cfg"] = {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32}


def build(name: str, device: str, small: bool, checkpointing: bool = False) -> Macco:
    """A MACCO of random weights, the same each time."""
    torch.manual_seed(0)
    clip = open_clip.model.CLIP(**SMALL) if small else open_clip.create_model(name, force_quick_gelu=True)
    clip.set_grad_checkpointing(checkpointing)
    _, text, image = (0, 1, 1) if small else MODELS[name]
    own = {"heads": 2} if small else {}
    return Macco(clip, Method(text_depth=text, image_depth=image, **own)).to(device)


def losses(model: Macco, batch: MaskedBatch, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The losses of one batch on the model's device."""
    device = next(model.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        found: dict[str, Tensor] = model(batch.to(device))
    return {name: loss.float().cpu() for name, loss in found.items()}


def equality(name: str, device: str, small: bool) -> bool:
    """Whether the device computes what the CPU does in float32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    batch = random_batch(build(name, "cpu", small), 8)
    expected, kept = losses(build(name, "cpu", small), batch, None), True
    for dtype, bound in ((None, 1e-4), (torch.bfloat16, 1e-2)):
        found = losses(build(name, device, small), batch, dtype)
        apart = max(abs(float(found[one] / value) - 1) for one, value in expected.items())
        kept &= apart <= bound
        print(f"{name} in {dtype or torch.float32}: losses {apart:.1e} from the CPU's (at most {bound:.0e})")
    return kept


def waits(name: str, device: str, small: bool) -> bool:
    """Whether nothing in a step makes the host wait."""
    model = build(name, device, small)
    batch = random_batch(model, 8).to(device)
    step = training_step(model, partial(fast, model, batch), partial(bf16, device))
    step()
    with Syncs() as seen:
        step()
    found = seen.found
    if device == "cuda":  # what the driver itself sees, libraries' own calls too
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
        torch.cuda.set_sync_debug_mode("default")
        found += [f"{one.filename}:{one.lineno}" for one in said if "synchroniz" in str(one.message)]
    print(f"{name}: the host waits {len(found)} times in a step {sorted(set(found))}")
    return not found


def one_rank(name: str, device: str, small: bool) -> bool:
    """Whether a step of one rank under NCCL (gloo on the CPU) has the losses of a step alone."""
    model = build(name, device, small)
    batch = random_batch(model, 8)
    alone = losses(model, batch, None)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1
    )
    try:
        together = losses(model, batch, None)
    finally:
        dist.destroy_process_group()
    same = all(math.isclose(together[one], value, rel_tol=1e-6) for one, value in alone.items())
    print(
        f"{name}: one rank of {'NCCL' if device == 'cuda' else 'gloo'} {'changes nothing' if same else 'CHANGES'}"
    )
    return same


def bf16(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16)


@contextmanager
def memory(device: str) -> Iterator[Callable[[], str]]:
    """Frees what there is before and after; says the peak."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield lambda: f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""


def measured(
    name: str, model: Macco, size: int, device: str, small: bool, rate: float, said: str = ""
) -> tuple[float, float] | None:
    """Print a step's speed; its seconds and peak bytes, or None where the memory does not hold it."""
    try:
        with memory(device) as peak:
            batch = random_batch(model, size).to(device)
            loss = partial(fast, model, batch)
            flops = operations(model, loss, device)
            (taken,) = medians([training_step(model, loss, partial(bf16, device))], 1 if small else 3, device)
            print(
                f"{name} batch {size}{said}: {size / taken:.0f} samples/s, {flops / size / 1e9:.1f} GFLOP each, "
                f"{flops / taken / rate:.0%} of the product rate{peak()}",
                flush=True,
            )
            return taken, torch.cuda.max_memory_allocated() if device == "cuda" else 0
    except torch.cuda.OutOfMemoryError:
        print(f"{name} batch {size}{said}: out of memory", flush=True)
        return None
    finally:
        model.zero_grad()


def operations(model: Macco, loss: Callable[[], Tensor], device: str) -> int:
    """The floating-point operations of a forward and backward pass, which a compiled block does not show."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter, bf16(device):
        torch.autograd.backward(loss())
    model.zero_grad()
    return int(counter.get_total_flops())


def steps(name: str, device: str, small: bool, ways: Iterable[str], batches: Sequence[int]) -> None:
    """Steps in bf16 of such batches, or of doubled ones up to the largest."""
    dtype = torch.float32 if small else torch.bfloat16  # most CPUs have no products in bf16
    rate = product_rate(device, dtype)
    print(f"matrix products {rate / 1e12:.2f} TFLOP/s in {dtype}")
    first = 8 if small else MODELS[name][0]
    for way in ways:
        model, peaks = build(name, device, small, way == "checkpointing"), []
        said = f", {way}" * (way != "plain")
        doubled: Iterable[int] = (first << times for times in count())
        if way == "compiled":
            if small:  # a CPU's compiler takes minutes
                continue
            model.compile_blocks()
            doubled = (first, 4 * first)
        for size in batches or doubled:
            found = measured(name, model, size, device, small, rate, said)
            if found is None:
                break
            peaks.append((size, found[1]))
            if not batches and (found[0] > 1 or (small and size > first)):
                break
        if device == "cuda" and len(peaks) > 1:
            (few, low), (many, high) = peaks[-2:]
            free = torch.cuda.get_device_properties(device).total_memory - high
            print(
                f"{name}{said}: {many + free * (many - few) / (high - low):.0f} samples fill the memory, by these two"
            )


def embedding(name: str, device: str, small: bool) -> None:
    """Patches by the model's convolution, and by the product that is made of it; forward and back."""
    convolution = build(name, device, small).image.module.conv1
    side = SMALL["vision_cfg"]["image_size"] if small else 224
    images = torch.randn(8 if small else 4 * MODELS[name][0], 3, side, side, device=device)

    def work(embed: Callable[[Tensor], Tensor]) -> None:
        with bf16(device):
            torch.autograd.backward(embed(images).float().mean())

    taken = medians(
        [partial(work, convolution), partial(work, partial(embed_patches, convolution))], 5, device
    )
    own, product = (1000 * seconds for seconds in taken)
    print(
        f"{name}: {len(images)} images' patches by a convolution {own:.1f} ms, by a product {product:.1f} ms"
    )


def profile(name: str, device: str, small: bool) -> None:
    """The operations of a step by their own time."""
    model = build(name, device, small)
    batch = random_batch(model, 8 if small else 4 * MODELS[name][0]).to(device)
    step = training_step(model, partial(fast, model, batch), partial(bf16, device))
    step()
    with torch.profiler.profile() as seen:
        step()
        if device == "cuda":
            torch.cuda.synchronize()
    print(seen.key_averages().table(f"self_{device}_time_total", row_limit=25, max_name_column_width=70))


def crops(device: str, small: bool) -> bool:
    """Crops resized on the device: how many, and whether they are those of the CPU."""
    random = torch.Generator().manual_seed(0)
    made = [
        torch.randint(0, 256, ((256, 341, 3), (341, 256, 3))[i % 3 == 0], generator=random, dtype=torch.uint8)
        for i in range(8 if small else 256)
    ]
    uncut = Uncut.of([one.numpy() for one in made], 224)
    (taken,) = medians([lambda: uncut.to(device)], 1 if small else 5, device)
    expected = F.interpolate(made[1].permute(2, 0, 1)[None], (224, 224), mode="bicubic", antialias=True)[0]
    apart = (uncut.to(device)[1].cpu().float() - expected.float()).abs().mean()
    print(f"crops: {len(made) / taken:.0f} images/s, copied and resized; {apart:.3f} levels from the CPU's")
    return bool(apart < 1)


def detectors(device: str, small: bool) -> None:
    """Each architecture's images a second, by size, precision and batch."""
    import transformers

    for name in ARCHITECTURES:
        torch.manual_seed(0)
        config: Any = getattr(transformers, f"{name}Config")()
        if small:
            config.encoder_layers = config.decoder_layers = 2
            config.num_queries = 20
        model = getattr(transformers, f"{name}ForObjectDetection")(config).eval().to(device)
        tokens = torch.randint(1000, 2000, (1, 24), device=device)
        tokens[0, 0], tokens[0, -1], tokens[0, 7:-1:7] = 101, 102, 1012
        for rows, columns in ((64, 96),) if small else SIZES:
            for dtype in (torch.float32, torch.bfloat16):
                size = 1
                while size <= (1 if small else 32) and _detect(
                    name, model, tokens, (size, 3, rows, columns), dtype, device, small
                ):
                    size *= 4


def _detect(
    name: str,
    model: Any,
    tokens: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: str,
    small: bool,
) -> bool:
    what = f"{name} {shape[2]}x{shape[3]} {dtype} batch {shape[0]}"
    try:
        with (
            memory(device) as peak,
            torch.no_grad(),
            torch.autocast(device, dtype, enabled=dtype != torch.float32),
        ):
            pixels = torch.randn(shape, device=device)
            ids = tokens.expand(shape[0], -1)

            def work() -> None:
                model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))

            (taken,) = medians([work], 1 if small else 3, device)
            print(f"{what}: {shape[0] / taken:.1f} images/s{peak()}", flush=True)
            return True
    except torch.cuda.OutOfMemoryError:
        print(f"{what}: out of memory", flush=True)
        return False


def main() -> int:
    """Run what is not skipped; exit code 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--how", nargs="+", default=list(WAYS), choices=WAYS, help="which steps")
    parser.add_argument("--batches", nargs="+", type=int, default=[], help="in place of doubled ones")
    parser.add_argument("--skip", nargs="+", default=[], choices=["equality", "steps", "crops", "detectors"])
    parser.add_argument("--profile", action="store_true", help="list the kernels of a step")
    options = parser.parse_args()
    small, device = options.small, "cpu" if options.small else "cuda"
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"the CPU, {torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__} on {where}")
    kept = True
    for name in options.models[:1] if small else options.models:
        if "equality" not in options.skip:
            kept &= equality(name, device, small) & one_rank(name, device, small) & waits(name, device, small)
        if "steps" not in options.skip:
            embedding(name, device, small)
            steps(name, device, small, options.how, options.batches)
        if options.profile:
            profile(name, device, small)
    if "crops" not in options.skip:
        kept &= crops(device, small)
    if "detectors" not in options.skip:
        detectors(device, small)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
