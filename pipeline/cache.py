"""Resized images by shard, for fast epochs: one file of JPEGs, and a table of where each lies in it."""

import io
import json
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

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
        pa.field("at", pa.int64(), nullable=False),  # bytes from the start of SHARD.jpegs
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)


class ImageCache(Folder):
    """A folder (any fsspec URL) of SHARD.jpegs and, written after it, SHARD.parquet."""

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

    def shards(self) -> set[str]:
        """Names of the shards that are complete."""
        return self.names(".parquet")

    def commit(self, shard: str, jpegs: bytes, table: pa.Table) -> None:
        """Write one shard's images, then the table that makes them visible."""
        out = io.BytesIO()
        pq.write_table(table.cast(CACHED), out, compression="zstd")
        try:
            self.put(f"{shard}.jpegs", jpegs)
            self.put(f"{shard}.parquet", out.getvalue())
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is complete is safe") from error

    def sql(self, shards: Sequence[str]) -> str:
        """SQL of the rows of some shards, with `file`, the URL of the JPEGs."""
        rows = parquet(*(literal(f"{self.url}/{shard}.parquet") for shard in shards))
        return f"(SELECT *, {quote(self.url + '/')} || shard || '.jpegs' AS file FROM {rows})"
