"""Every kind of detector on the same images and phrases, with random weights: what each costs, and whether a batch says
what single images say.

    python benchmarks/grounding.py --all [--full] [--images 16] [--device cpu] [--dtype fp32]

Each runs in a process of its own. Passes are (image, prompt) pairs; memory is what the peak grows by while a batch is
looked at, by image of it. With --full the networks have their published sizes, else a few layers of a few units: then
the numbers show that things run, and not what they cost.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from macco.preprocess.detectors import Detections, load_detector
from macco.preprocess.detectors.canvas import ImageRule

ROOT = Path(__file__).parents[1]
FAMILY = ("grounding-dino", "mm-grounding-dino")


def kinds() -> list[str]:
    """All backends, those without a network first."""
    return ["none", "boxes", "groundingdino", *FAMILY, *_random().PHRASEWISE]


def _random() -> Any:
    sys.path.insert(0, str(ROOT / "scripts"))
    import random_detectors

    return random_detectors


def write(kind: str, folder: Path, phrases: list[list[str]], *, small: bool) -> str:
    """Write a detector of a kind; returns its spec."""
    if kind == "none":
        return kind
    if kind == "boxes":
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            {"image": str(n), "phrase": phrase, "x0": 0.1, "y0": 0.1, "x1": 0.9, "y1": 0.9}
            for n, own in enumerate(phrases)
            for phrase in own
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / "boxes.parquet")
        return f"boxes:{folder / 'boxes.parquet'}"
    scripts, bert = _random(), folder / _random().BERT
    if kind in scripts.PHRASEWISE:
        return str(scripts.PHRASEWISE[kind](folder / kind, small=small))
    scripts.write_bert(bert, ROOT / "tests/data/bert/vocab.txt", small=small)
    if kind == "groundingdino":
        return str(scripts.write_original(folder, small=small))
    return str(scripts.write_transformers(folder / kind, bert, kind, small=small))


def detect(detector: Any, images: list[Any], phrases: list[list[str]], first: int = 0) -> list[Detections]:
    """Ask it, by name where it knows names."""
    if hasattr(detector, "look_up"):
        names = [[str(first + n)] for n in range(len(images))]
        found: list[Detections] = detector.look_up("0", names, phrases)
        return found
    return list(detector.detect(images, phrases))


def peak(device: torch.device | None) -> float:
    """MiB at most so far."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def differ(together: list[Detections], alone: list[Detections]) -> float:
    """The largest difference of a score or a corner between boxes in a batch and alone; inf where their numbers do."""
    worst = 0.0
    for a, b in zip(together, alone, strict=True):
        if a.phrase.tolist() != b.phrase.tolist():
            return float("inf")
        for one, other in ((a.scores, b.scores), (a.boxes, b.boxes)):
            worst = max(worst, float(np.abs(one - other).max(initial=0)))
    return worst


def measure(kind: str, inputs: tuple[list[Any], list[list[str]]], args: argparse.Namespace) -> dict[str, Any]:
    """One backend, in this process."""
    images, phrases = inputs
    with tempfile.TemporaryDirectory() as folder:
        spec = write(kind, Path(folder), phrases, small=not args.full)
        options = {"device": args.device, "dtype": args.dtype, "batch_size": args.batch_size}
        detector: Any = load_detector(spec, box_threshold=0.0, nms_iou=0.9, **options)  # noise scores little
    network = getattr(detector, "network", None)
    device = network.device if network is not None else None
    if kind == "groundingdino" and not args.full:
        network.rule = ImageRule(128, 256)  # as small as the others: its files have no rule of their own
    detect(detector, images[:1], phrases[:1])  # warm up
    before, done, start = peak(device), getattr(detector, "passes", 0), time.perf_counter()
    together = detect(detector, images, phrases)
    seconds, grown = time.perf_counter() - start, peak(device) - before
    passes = getattr(detector, "passes", 0) - done
    alone = [detect(detector, [image], [phrases[n]], n)[0] for n, image in enumerate(images)]
    return {
        "kind": kind,
        "passes": passes / len(images),
        "ms": 1000 * seconds / len(images),
        "mib": grown / min(args.batch_size, len(images)),
        "boxes": sum(len(found.phrase) for found in together),
        "differ": differ(together, alone),
        "where": str(device or "no network"),
    }


def compare(args: argparse.Namespace, arguments: list[str]) -> None:
    """Run every backend, each in a process of its own, and print a table."""
    print(
        f"{'published' if args.full else 'small'} sizes, random weights, {args.dtype}, batches of {args.batch_size}"
    )
    print(f"{'':18}{'passes':>8}{'ms':>10}{'MiB':>8}{'boxes':>7}  batch - single   (by image)")
    for kind in kinds():
        command = [
            sys.executable,
            __file__.replace("detectors.py", "grounding.py"),
            *arguments,
            "--backend",
            kind,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{kind:18}{(done.stderr.strip().splitlines() or ['?'])[-1]}")
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"{kind:18}{row['passes']:8.1f}{row['ms']:10.1f}{row['mib']:8.1f}{row['boxes']:7d}  {row['differ']:.1e}"
            f"  {row['where']}",
            flush=True,
        )
