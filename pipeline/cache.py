"""Resized images by shard, for fast epochs: one file of JPEGs, and a table of where each lies in it."""

import io
import json
from collections.abc import Sequence
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from macco.pipeline import folder as files
from macco.pipeline.errors import UserError

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


class ImageCache:
    """A folder (any fsspec URL) of SHARD.jpegs and, written after it, SHARD.parquet."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = fsspec.core.url_to_fs(url)
        # What readers are told: an absolute path, or the URL with its protocol.
        self.url = self.root if isinstance(self.fs, LocalFileSystem) else self.fs.unstrip_protocol(self.root)

    @classmethod
    def open(cls, url: str) -> "ImageCache":
        """Open an existing cache; raise UserError where there is none."""
        cache = cls(url)
        if not cache.fs.exists(f"{cache.root}/cache.json"):
            raise UserError(f"{url} is no image cache (no cache.json); make one with: macco-prep cache")
        return cache

    @classmethod
    def create(cls, url: str, settings: dict[str, Any]) -> "ImageCache":
        """Make a cache, or open one made with the same settings; raise UserError where they differ."""
        cache = cls(url)
        path = f"{cache.root}/cache.json"
        try:
            if not cache.fs.exists(path):
                cache.fs.makedirs(cache.root, exist_ok=True)
                files.put(cache.fs, path, json.dumps(settings, indent=1).encode())
            elif (other := json.loads(cache.fs.cat_file(path))) != settings:
                raise UserError(f"{url} was made with {other}, not {settings}: choose another --out")
        except OSError as error:
            raise UserError(f"cannot write to {url}: {error}") from error
        return cache

    def shards(self) -> set[str]:
        """Names of the shards that are complete."""
        names = (name.rsplit("/", 1)[-1] for name in self.fs.ls(self.root, detail=False, refresh=True))
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def commit(self, shard: str, jpegs: bytes, table: pa.Table) -> None:
        """Write one shard's images, then the table that makes them visible."""
        out = io.BytesIO()
        pq.write_table(table.cast(CACHED), out, compression="zstd")
        try:
            files.put(self.fs, f"{self.root}/{shard}.jpegs", jpegs)
            files.put(self.fs, f"{self.root}/{shard}.parquet", out.getvalue())
        except OSError as error:
            raise UserError(f"cannot write to {self.url}: {error}; what is complete is safe") from error

    def sql(self, shards: Sequence[str]) -> str:
        """SQL of the rows of some shards, with `file`, the URL of the JPEGs."""
        names = ", ".join("'" + f"{self.url}/{shard}.parquet".replace("'", "''") + "'" for shard in shards)
        root = self.url.replace("'", "''")
        return f"(SELECT *, '{root}/' || shard || '.jpegs' AS file FROM read_parquet([{names}]))"
