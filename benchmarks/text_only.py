"""What images cost `extract --detector none`: captions a second of one core, as a ratio to the parse step alone.

    OMP_NUM_THREADS=1 python -m benchmarks.text_only [--captions 10000] [--each 1] [--photos 64] [--weight 160]

Tars of 640 x 480 JPEGs, `--each` captions an image, are extracted shard by shard; in turn the same captions are parsed
into Arrow rows as `benchmarks/parse.py` does ("rows"). CPU time of all threads of this process is counted.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.loader import LINES, photo, write_tar
from benchmarks.parse import tables
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.shard import Extractor
from macco.preprocess.graph.scene_graphs import SceneGraphs
from macco.preprocess.sources import plan

SHARD = 1000  # captions


def distinct(count: int) -> Iterator[list[str]]:
    """Captions that differ, SHARD at a time: equal ones would be parsed once."""
    for first in range(0, count, SHARD):
        numbers = range(first, min(first + SHARD, count))
        yield [f"{LINES[number % len(LINES)].rstrip(' .')} {number}" for number in numbers]


def lighter(data: bytes, kilobytes: int) -> bytes:
    """The same picture as a JPEG of about so many kilobytes."""
    image, quality = Image.open(io.BytesIO(data)), 90
    while len(data) > 1000 * kilobytes and quality > 10:
        quality -= 10
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        data = out.getvalue()
    return data


def main() -> None:
    """Run in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=1, help="captions of an image")
    parser.add_argument("--photos", type=int, default=64, help="different pictures, used again and again")
    parser.add_argument("--weight", type=int, default=160, help="kilobytes of a picture, at most about")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    photos = [lighter(photo(random), options.weight) for _ in range(options.photos)]
    extractor = Extractor(ExtractConfig(detector="none"))
    graphs = SceneGraphs.load("en_caption", "repaired")
    parsing, extracting = [], []
    steps: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for number, captions in enumerate(distinct(options.captions)):
            groups = [captions[at : at + options.each] for at in range(0, len(captions), options.each)]
            tar = Path(name, f"{number}", "00000.tar")
            pictures = (photos[place % len(photos)] for place in range(len(groups)))
            write_tar(tar, pictures, (json.dumps({"captions": group}) for group in groups), "json")
            (shard,) = plan([str(tar)], dataset="d")
            start = time.process_time()
            tables(graphs, captions)
            middle = time.process_time()
            made, record = extractor.extract(shard)
            end = time.process_time()
            assert made["samples"]["status"].to_pylist() == ["ok"] * len(captions)
            parsing.append((middle - start) / len(captions))
            extracting.append((end - middle) / len(captions))
            for step, seconds in record["seconds"].items():
                steps[step] = steps.get(step, 0.0) + seconds
    weight = statistics.mean(map(len, photos)) / 1000
    ratio = statistics.median(b / a for a, b in zip(parsing, extracting, strict=True))
    print(
        f"{options.captions} captions, {options.each} an image of {weight:.0f} kB; medians of {len(parsing)} shards"
    )
    print(f"parse     {1000 * statistics.median(parsing):7.3f} ms a caption")
    print(f"extract   {1000 * statistics.median(extracting):7.3f} ms a caption: {ratio:.3f} times that")
    print(f"seconds of steps, which overlap: { {step: round(value, 2) for step, value in steps.items()} }")


if __name__ == "__main__":
    main()
