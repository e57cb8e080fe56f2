"""Grounding: one pass for all phrases of an image against one pass per phrase, and batches against single images.

    python benchmarks/grounding.py --all [--full]
    python benchmarks/grounding.py [--detector SPEC] [--store STORE] [--images 64] [--device cpu] [--dtype fp32]

With --all, every kind of detector on random weights: see detectors.py. With --store, images and phrases are those of
an extracted store; without, noise and made-up phrases (10 to 20 per image, "red dog"). The default detector is `tiny`
where it is installed; else GroundingDINO SwinT with random weights on images of 256 pixels, which shows time but finds
nothing.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.pictures import decode
from macco.preprocess.detectors import Detections, check_detector, load_detector
from macco.preprocess.detectors.canvas import ImageRule

sys.path.insert(0, str(Path(__file__).parent))
from detectors import compare, measure

ROOT = Path(__file__).parents[1]
COLORS = ["red", "green", "blue", "yellow", "purple", "white", "black", "orange"]
NOUNS = ["dog", "cat", "umbrella", "car", "bus", "tree", "house", "bird", "horse", "boat", "sofa", "clock"]

Inputs = tuple[list[Any], list[list[str]]]


def made_up(count: int, side: int) -> Inputs:
    """Noise images of side x side pixels, each with 10 to 20 phrases."""
    rng = random.Random(0)
    pairs = [f"{color} {noun}" for color in COLORS for noun in NOUNS]
    images = [np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8) for i in range(count)]
    return images, [rng.sample(pairs, rng.randint(10, 20)) for _ in images]


def from_store(store: str, count: int, max_side: int) -> Inputs:
    """The first images of a store, with the phrases of all their captions."""
    import duckdb
    import fsspec

    rows = duckdb.sql(
        f"""select source, "offset", size, list(distinct phrase order by phrase)
            from '{store}/samples/*.parquet' join '{store}/concepts/*.parquet' using (sample_id)
            where kind = 'object' and phrase is not null and status = 'ok'
            group by all order by all limit {count}"""
    ).fetchall()
    images = []
    for source, offset, size, _ in rows:
        with fsspec.open(source, "rb") as stream:
            stream.seek(offset or 0)
            images.append(decode(stream.read(size or -1), max_side=max_side).image)
    return images, [row[3] for row in rows]


def random_swint(folder: Path) -> str:
    """Write GroundingDINO SwinT with random weights; returns its spec."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import random_detectors

    bert = folder / random_detectors.BERT
    random_detectors.write_bert(bert, ROOT / "tests/data/bert/vocab.txt", small=False)
    return random_detectors.write_transformers(folder / "swint", bert, "grounding-dino", small=False)


def timed(detector: Any, inputs: Inputs, each: int | None = None) -> tuple[list[Detections], float, int]:
    """Detections, seconds and passes; `each` images per call (all by default)."""
    images, phrases = inputs
    each = each or len(images)
    before, start = detector.passes, time.perf_counter()
    found = []
    for i in range(0, len(images), each):
        found += detector.detect(images[i : i + each], phrases[i : i + each])
    return found, time.perf_counter() - start, detector.passes - before


def same_best_box(
    packed: list[Detections], alone: list[Detections], phrases: list[list[str]]
) -> tuple[int, int]:
    """Of the phrases with a box both ways, how many have the same best one (IoU over 0.5), and how many there are."""
    same = both = 0
    flat = iter(alone)
    for found, of_image in zip(packed, phrases, strict=True):
        for number in range(len(of_image)):
            single = next(flat)
            a, b = found.boxes[found.phrase == number][:1], single.boxes[:1]
            if len(a) and len(b):
                sides = np.maximum(0, np.minimum(a, b)[0, 2:] - np.maximum(a, b)[0, :2])
                areas = [(box[0, 2:] - box[0, :2]).prod() for box in (a, b)]
                same += sides.prod() > 0.5 * (sum(areas) - sides.prod())
                both += 1
    return int(same), both


def load(args: argparse.Namespace) -> Any:
    """The detector that was asked for, or the default."""
    options = {"device": args.device, "dtype": args.dtype, "batch_size": args.batch_size}
    options["box_threshold"] = args.threshold
    if args.detector:
        return load_detector(args.detector, **options)
    try:
        check_detector("tiny")
    except UserError:
        with tempfile.TemporaryDirectory() as folder:
            detector: Any = load_detector(random_swint(Path(folder)), **options)
        detector.network.rule = ImageRule(256, 426)
        return detector
    return load_detector("tiny", **options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--detector")
    parser.add_argument("--store")
    parser.add_argument("--images", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.backend:
        print(json.dumps(measure(args.backend, made_up(args.images or 16, 256), args)))
        return
    if args.all:
        compare(args, [argument for argument in sys.argv[1:] if argument != "--all"])
        return

    detector = load(args)
    rule = detector.network.rule
    count = args.images or (64 if rule.shortest <= 128 else 2)
    inputs = from_store(args.store, count, rule.longest) if args.store else made_up(count, rule.shortest)
    images, phrases = inputs
    detector.detect(images[:2], phrases[:2])  # warm up

    asked = sum(map(len, phrases))
    name = args.detector or ("tiny" if rule.shortest <= 128 else "SwinT with random weights")
    print(
        f"{name} on {detector.network.device}, {args.dtype}, short side {rule.shortest}, {args.threads} thread(s)"
    )
    print(f"{len(images)} images, {asked / len(images):.1f} phrases each")
    packed, packed_seconds, packed_passes = timed(detector, inputs)
    _, single_seconds, _ = timed(detector, inputs, each=1)
    repeated = [image for image, of_image in zip(images, phrases, strict=True) for _ in of_image]
    alone, alone_seconds, alone_passes = timed(detector, (repeated, [[p] for ps in phrases for p in ps]))
    for name, seconds, passes in (
        (f"all phrases at once, batches of {args.batch_size}", packed_seconds, packed_passes),
        ("all phrases at once, one image a time", single_seconds, packed_passes),
        (f"one pass per phrase, batches of {args.batch_size}", alone_seconds, alone_passes),
    ):
        print(f"{name:40} {passes:6d} passes {seconds:8.2f} s {1000 * seconds / len(images):9.1f} ms/image")
    ratio = f"{alone_passes / packed_passes:.1f} x passes, {alone_seconds / packed_seconds:.1f} x time"
    print(f"one pass per phrase costs {ratio}")
    same, both = same_best_box(packed, alone, phrases)
    print(f"same best box both ways: {same} of {both} phrases")


if __name__ == "__main__":
    main()
