"""What a step of each objective costs, in time and memory: as a ratio to CLIP's contrast alone, in one run.

    python benchmarks/objectives.py [--batch 8] [--repeats 3] [--docs docs/objectives.md]

ViT-B/32 in float32 on one thread of the CPU; weights and batches are random, captions have 14 tokens, phrases and
units fewer, as `macco-train bench` draws them. Steps are taken in turns, and CPU time is counted, so that a busy
machine is as busy for all. A step is its forward and backward pass: the optimizer's, the same for all, is left out,
for at this batch it would count far more than at a real one. Memory is what the forward pass keeps for the backward
one, parameters left out. READ-CLIP's decoder has the paper's sizes (t5-v1_1-large); joint encoders have VisualBERT's
base size, over a frozen CLIP's features that the store has already. `--docs` writes the table into a page, between
its marks.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from macco.train.clip.load import load_start
from macco.train.config import TrainConfig
from macco.train.layers import parse, preset, resolve
from macco.train.loop.state import build_model
from macco.train.objectives.objective import Step, load_objective

ARMS = {  # preset and assignments of each; the first is what the others are compared with
    "contrast alone": "ablation-fine-tuned",
    "NegCLIP's contrast (`method.negatives`)": "negclip",
    "`macco`": "paper-vitb32",
    "`fsc`": "fsc-vitb32",
    "`c2lip`": "c2lip-vitb32",
    "`csclip`": "csclip-vitb32",
    "`read`": "read-vitb32",
    "`degla`, with its teacher": "degla-vitb32",
    "`itm`, 3 negatives": "cacr joint.negatives=3 objective=itm",
    "`iais-singular`, 3 negatives": "cacr joint.negatives=3 objective=iais-singular",
    "`iais-distributed`, 3 negatives": "cacr joint.negatives=3 objective=iais-distributed",
    "`cacr`, 3 negatives": "cacr joint.negatives=3",
}
BEGIN, END = "<!-- benchmarks/objectives.py -->", "<!-- end -->"


def decoder(folder: Path) -> str:
    """A folder with a random T5 of t5-v1_1-large's decoder; the encoder, which nothing uses, has one layer."""
    sizes = {
        "d_model": 1024,
        "d_kv": 64,
        "d_ff": 2816,
        "num_heads": 16,
        "num_layers": 1,
        "num_decoder_layers": 24,
    }
    config = T5Config(
        **sizes,
        vocab_size=32_128,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def settings(name: str, given: list[str]) -> TrainConfig:
    """Those of an arm."""
    first, *own = ARMS[name].split()
    return resolve(preset(first), parse([*given, *own]))


def passes(model: str, size: int, t5: Path) -> Iterator[tuple[str, Any, Callable[[], object]]]:
    """Name, model, and forward and backward pass of each arm, all over one CLIP."""
    given = [f"model.name={model}", "model.pretrained=", "device=cpu", f"read.decoder={decoder(t5)}"]
    clip = load_start(resolve(parse(given)).model, 0).model
    for name in ARMS:
        objective = load_objective(settings(name, given))
        frozen = objective.config.settings.product  # a joint encoder, whose CLIP is no others' then
        built = build_model(objective, deepcopy(clip) if frozen else clip, torch.device("cpu"))
        batch = objective.random_batch(built, size)
        yield name, built, partial(objective.gradients, built, batch, Step(1, 2), nullcontext)


def kept(model: Any, work: Callable[[], object]) -> int:
    """Bytes that a pass keeps for its backward half, each storage once, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for one in (model, *model._beside) for p in one.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        work()
    return sum(sizes.values())


def measure(model: str, size: int, repeats: int, t5: Path) -> dict[str, tuple[float, float]]:
    """CPU seconds, the least, for others' work can only add to them, and bytes kept, of each arm."""
    memory, works, seconds = {}, {}, {}
    for name, built, work in passes(model, size, t5):
        memory[name], works[name], seconds[name] = kept(built, work), work, list[float]()  # warms up, too
    for _ in range(repeats):
        for name, work in works.items():
            began = time.process_time()
            work()
            seconds[name].append(time.process_time() - began)
    return {name: (min(seconds[name]), memory[name]) for name in works}


def table(found: dict[str, tuple[float, float]], model: str, size: int, repeats: int) -> str:
    """The ratios as a Markdown table, with what they were measured on."""
    time_of_one, memory_of_one = found[next(iter(ARMS))]
    lines = ["| objective | time of a step | memory |", "|---|---:|---:|"]
    for name, (seconds, memory) in found.items():
        lines.append(f"| {name} | {seconds / time_of_one:.2f} | {memory / memory_of_one:.2f} |")
    load = "/".join(f"{one:.0f}" for one in os.getloadavg())
    lines += [
        "",
        f"Contrast alone: {time_of_one:.2f} s of CPU, {memory_of_one / 2**20:.0f} MiB of activations. {model},",
        f"batch {size}, float32, one thread of {processor()}, PyTorch {torch.__version__.split('+')[0]}; forward and",
        f"backward pass, the least of {repeats} steps taken in turns; load of the machine {load} on "
        f"{os.cpu_count()} cores.",
    ]
    return "\n".join(lines)


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def insert(page: Path, text: str) -> None:
    """Put the table between the marks of a page."""
    before, mark, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f"{page} has no marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--docs", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.model, args.batch, args.repeats, Path(folder))
    text = table(found, args.model, args.batch, args.repeats)
    print(text)
    if args.docs:
        insert(args.docs, text)


if __name__ == "__main__":
    main()
