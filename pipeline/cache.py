"""Resized images by shard, for fast epochs: one file of them, and a table of where each lies in it.

They are JPEGs, or pixels: six times as many bytes, and nothing to decode.
"""

import io
import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.views import literal, parquet, quote

# One row per image. `source` and `offset` are the original's, as in samples: an entry of another image does not count.
CACHED: Final = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("at", pa.int64(), nullable=False),  # bytes from the start of SHARD.jpegs or SHARD.pixels
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)


JPEGS: Final = "jpegs"
PIXELS: Final = "pixels"  # each a binary PPM, whose header says its size
_HEADER = re.compile(rb"P6\n(\d+) (\d+)\n255\n")


def as_cached(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels [height, width, 3] of what a cache of pixels holds; None where it is anything else."""
    if not (head := _HEADER.match(data)):
        return None
    width, height = int(head[1]), int(head[2])
    if not width * height * 3 == len(data) - head.end() > 0:
        return None
    return np.frombuffer(data, np.uint8, offset=head.end()).reshape(height, width, 3)


class ImageCache(Folder):
    """A folder (any fsspec URL) of SHARD.jpegs or SHARD.pixels and, written after it, SHARD.parquet."""

    @classmethod
    def open(cls, url: str) -> "ImageCache":
        """Open an existing cache; raise UserError where there is none."""
        cache = cls(url)
        if not cache.exists("cache.json"):
            raise UserError(f"{url} is no image cache (no cache.json); make one with: macco-prep cache")
        return cache

    @classmethod
    def create(cls, url: str, settings: dict[str, Any]) -> "ImageCache":
        """Make a cache, or open one made with the same settings; raise UserError where they differ."""
        cache = cls(url)
        try:
            if not cache.exists("cache.json"):
                cache.make()
                cache.put("cache.json", json.dumps(settings, indent=1).encode())
            elif (other := json.loads(cache.read("cache.json"))) != settings:
                raise UserError(f"{url} was made with {other}, not {settings}: choose another --out")
        except OSError as error:
            raise UserError(f"cannot write to {url}: {error}") from error
        return cache

    @cached_property
    def form(self) -> str:
        """What the images are: jpegs or pixels."""
        return str(json.loads(self.read("cache.json")).get("form", JPEGS))

    def shards(self) -> set[str]:
        """Names of the shards that are complete."""
        return self.names(".parquet")

    def commit(self, shard: str, images: bytes, table: pa.Table) -> None:
        """Write one shard's images, then the table that makes them visible."""
        out = io.BytesIO()
        pq.write_table(table.cast(CACHED), out, compression="zstd")
        try:
            self.put(f"{shard}.{self.form}", images)
            self.put(f"{shard}.parquet", out.getvalue())
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is complete is safe") from error

    def sql(self, shards: Sequence[str]) -> str:
        """SQL of the rows of some shards, with `file`, the URL of the images."""
        rows = parquet(*(literal(f"{self.url}/{shard}.parquet") for shard in shards))
        file = f"{quote(self.url + '/')} || shard || {quote('.' + self.form)}"
        return f"(SELECT *, {file} AS file FROM {rows})"
