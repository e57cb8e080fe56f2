"""What extraction costs beside the detector: images a second of one core, without the parser and with five captions.

    python benchmarks/extraction.py [--images 256]

One tar of 640 x 480 JPEGs is extracted into a store: read, decoded, hashed, (parsed,) packed, gathered as rows and
committed. The detector is a dummy that finds a box of each phrase at once. CPU time of all threads is counted. By turns
with it, all of it with pictures decoded and hashed by Pillow alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL.Image import Image, Resampling

from benchmarks.loader import LINES, photo, write_tar
from macco.pipeline import pictures
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.detectors import Detections
from macco.preprocess.extraction.shard import Extractor, Job, Parse, parse_here
from macco.preprocess.graph.parser import Parsed
from macco.preprocess.sources import plan

CAPTIONS = 5


class Dummy:
    """A detector that finds one box of each phrase, whatever the picture."""

    max_side = 1333

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def detect(self, images: Sequence[Image], phrases: Sequence[Sequence[str]]) -> Iterator[Detections]:
        for asked in phrases:
            count = len(asked)
            boxes = np.tile(np.array([0.1, 0.1, 0.6, 0.7], np.float32), (count, 1))
            yield Detections(np.arange(count, dtype=np.int32), boxes, np.full(count, 0.5, np.float32))


def nothing(captions: Sequence[str], names: Sequence[str]) -> "Future[Parsed]":
    """A parser that finds nothing, at once."""
    found: Future[Parsed] = Future()
    found.set_result(Parsed([[] for _ in captions], {}))
    return found


def by_pillow(image: Image) -> int:
    """The hash as imagehash has it."""
    small = np.asarray(image.convert("L").resize((9, 8), Resampling.LANCZOS))
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def rate(folder: Path, tar: str, name: str, parse: Parse) -> None:
    """Images of one core and second, and where they went."""
    extractor = Extractor(ExtractConfig(device="cpu"), parse)
    extractor.detector = Dummy()  # type: ignore[assignment]
    store = Store.create(str(folder / name), {"made": "for the benchmark"})
    (shard,) = plan([tar], dataset="d")
    rates: dict[str, list[float]] = {"pillow": [], "ours": []}
    hashes = []
    for way in [*rates] * 5:
        with ExitStack() as changed:
            if way == "pillow":
                changed.enter_context(patch.object(pictures, "_jpeg", lambda *_: None))
                changed.enter_context(patch.object(pictures, "dhash", by_pillow))
            begin = time.process_time()
            statuses = extractor.commit(store, Job(shard))
            rates[way].append(sum(statuses.values()) / CAPTIONS / (time.process_time() - begin))
        hashes.append(store.table("samples", shard.name)["dhash"].to_pylist())
    assert all(each == hashes[0] for each in hashes)
    ours, pillow = (statistics.median(rates[way]) for way in ("ours", "pillow"))
    print(
        f"{name}: {ours:.0f} images/s of one core, by Pillow alone {pillow:.0f} (1/{ours / pillow:.2f}); {statuses}"
    )
    print(f"    seconds: {Store.open(store.url).shard(shard.name)['seconds']}", flush=True)


def main() -> None:
    """Run both in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = cycle(LINES)
        captions = (json.dumps({"captions": list(islice(lines, CAPTIONS))}) for _ in range(options.images))
        write_tar(
            folder / "tars" / "00000.tar", (photo(random) for _ in range(options.images)), captions, "json"
        )
        tar = str(folder / "tars" / "00000.tar")
        rate(folder, tar, "without the parser", nothing)
        rate(folder, tar, "with five captions", parse_here(ExtractConfig(device="cpu")))


if __name__ == "__main__":
    main()
