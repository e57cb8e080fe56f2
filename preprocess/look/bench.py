"""How fast this machine extracts, measured on a sample, and what a corpus takes by it."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.pipeline.pictures import ImageError
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.exchange.cache import shrink
from macco.preprocess.extraction.shard import Extractor, Job
from macco.preprocess.sources import Shard, SourceImage

WARM_UP: Final = 4  # images that are extracted before: models load and compile what they need
CACHED: Final = 16  # images whose resized copies are weighed


@dataclass(frozen=True)
class Part(Shard):
    """The first images of a shard."""

    most: int = 64

    def read(self) -> Iterator[SourceImage]:
        """The first of them."""
        return islice(super().read(), self.most)


def measure(
    shard: Shard, config: ExtractConfig, store: str, images: int, pairs: int, workers: int
) -> dict[str, Any]:
    """Extract a shard's first images into a store; the rates, and what `pairs` captions take by them.

    Raises UserError where no caption of the sample can be used.
    """
    extractor, made = Extractor(config), Store.create(store, config.settings())
    given = {field.name: getattr(shard, field.name) for field in fields(Shard)}
    extractor.commit(made, Job(Part(**given, most=WARM_UP)))
    few, before = _weight(store), made.shard(shard.name)["samples"]
    begin = time.perf_counter()
    statuses = extractor.commit(made, Job(Part(**given, most=images)))
    seconds = time.perf_counter() - begin
    count, rows = made.shard(shard.name)["input"]["content"]["images"], sum(statuses.values())
    if not statuses.get("ok"):
        raise UserError(f"no caption of {shard.url} can be used: {dict(statuses)}")
    per_pair = (_weight(store) - few) / max(
        rows - before, 1
    )  # a file's own bytes, beside its rows', left out
    steps = made.shard(shard.name)["seconds"]
    made.close()
    pictures = pairs * count / rows
    return {
        "sample": {"of": shard.url, "images": count, "captions": rows, "statuses": statuses},
        "rates": {
            "images/s": round(count / seconds, 1),
            "captions/s": round(rows / seconds, 1),
            "ms an image": {name: round(1000 * s / count, 1) for name, s in steps.items()},
        },
        "plan": {
            "pairs": pairs,
            "images": round(pictures),
            "workers": workers,
            "hours": round(pairs / (rows / seconds) / workers / 3600, 2),
            "store": size(pairs * per_pair),
        }
        | {name: size(pictures * weight) for name, weight in _cached(Part(**given, most=CACHED)).items()},
    }


def _cached(sample: Shard) -> dict[str, float]:
    """Bytes of an image in the caches that `macco-prep cache` writes."""
    found: dict[str, list[int]] = {"cache of JPEGs": [], "cache of pixels": []}
    for image in sample.read():
        for sizes, quality in zip(found.values(), (90, None), strict=True):
            try:
                sizes.append(len(shrink(image.image or b"", 256, quality)))
            except ImageError:
                continue
    return {name: statistics.mean(sizes) for name, sizes in found.items() if sizes}


def _weight(store: str) -> int:
    """Bytes of the tables of a local store."""
    return sum(path.stat().st_size for path in Path(store).glob("*/*.parquet"))


def size(count: float) -> str:
    """Bytes, for people: in the largest of MB, GB and TB of which it is one at least."""
    unit = 2 if count < 1e9 else 3 if count < 1e12 else 4
    return f"{count / 1000**unit:,.1f} {('MB', 'GB', 'TB')[unit - 2]}"
