"""Leakage: which images of a benchmark a training store holds, by file name and by content."""

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import duckdb
import pyarrow as pa

from macco.pipeline.cores import cores
from macco.pipeline.dhash import dhash
from macco.pipeline.pictures import ANY_PIXELS, ImageError, decode, read_image_bytes
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.views import quote
from macco.train.evaluation.item import Picture

MAX_DISTANCE: Final = 7  # bits; one band of the 64 more than bits that may differ
_IMAGE: Final = ("dataset", "shard", "key")  # what names an image of a store
# COCO's file names of 2014 carry a prefix that those of 2017 lack, and VisDial's are COCO's too.
_NAME: Final = (
    r"regexp_replace(lower(parse_filename({path}, true)), '^(coco|visualdialog)_[a-z]+20\d\d_', '')"
)


@dataclass(frozen=True)
class Leakage:
    """What one benchmark shares with a store; `matches` has a row per (benchmark image, stored image)."""

    benchmark: str
    images: int  # distinct images that the benchmark uses
    unreadable: int  # of them not there or damaged: looked for by name alone
    flat: int  # without any contrast, whose hash says nothing: by name alone
    by_name: int  # images found by file name
    by_hash: int  # images found by content
    either: int
    matches: pa.Table

    def line(self) -> str:
        """The finding in one line."""
        hashed = self.images - self.unreadable - self.flat
        return (
            f"{self.benchmark}: {self.either} of {self.images} images are in the store "
            f"({self.by_name} by name, {self.by_hash} of {hashed} hashed ones by content; "
            f"{self.unreadable} could not be read, {self.flat} are flat)"
        )


def stored_images(store: Store) -> duckdb.DuckDBPyConnection:
    """A connection with the table `stored`: one row per image of the store, with its name and hash.

    Images that the store has no hashes of, such as imported ones, are decoded here.
    """
    connection = connect(store, views=("samples", "shards"))
    connection.execute(
        f"""CREATE TEMP TABLE stored AS
        SELECT dataset, shard, key,
               any_value(CASE WHEN lower(source) NOT LIKE '%.parquet'  -- a cell of a table has no file name
                              THEN {_NAME.format(path="coalesce(member, source)")} END) AS name,
               any_value(dhash) AS hash
        FROM samples GROUP BY dataset, shard, key"""
    )
    _hash_others(connection)
    return connection


def _hash_others(connection: duckdb.DuckDBPyConnection) -> None:
    """Hash the images that are in use and were only measured, at the size that their shard names."""
    rows = connection.execute(
        """SELECT dataset, shard, key, any_value(max_side), any_value(source), any_value(member), any_value("offset"),
            any_value(size) FROM samples JOIN (SELECT shard, max_side FROM shards) USING (shard)
        WHERE status = 'ok' AND dhash IS NULL GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    # Each thread's decoder would set and reset the filters of all.
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as threads:
        hashes = list(threads.map(lambda row: _hash(*row[3:]), rows))
    made = pa.table(
        {name: pa.array([row[n] for row in rows], pa.string()) for n, name in enumerate(_IMAGE)}
        | {"made": pa.array(hashes, pa.uint64())}
    )
    connection.register("hashed", made)
    same = " AND ".join(f"stored.{name} = hashed.{name}" for name in _IMAGE)
    connection.execute(f"UPDATE stored SET hash = made FROM hashed WHERE {same}")


def audit(
    connection: duckdb.DuckDBPyConnection, benchmark: str, pictures: Iterable[Picture], distance: int = 4
) -> Leakage:
    """Compare a benchmark's pictures with `stored_images`.

    distance: hashes that differ in at most so many of 64 bits count as the same image, 0 to 7. A name counts as
    the same whatever the folder or ending ("COCO_val2014_000000222235.jpg" is "000000222235.jpg"); a cell of a
    Parquet file has none.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance is {distance}; it must be 0 to {MAX_DISTANCE}")
    whole = list(dict.fromkeys(Picture(picture.source, picture.member) for picture in pictures))
    sides = [side for (side,) in connection.execute("SELECT DISTINCT max_side FROM shards").fetchall()]
    hashes = [_hashes(picture, sides or [None]) for picture in whole]
    rows = [(picture, one) for picture, found in zip(whole, hashes, strict=True) for one in found or {0}]
    asked = pa.table(
        {
            "image": pa.array([_path(picture) for picture, _ in rows], pa.string()),
            "file": pa.array([p.source if p.member is None else None for p, _ in rows], pa.string()),
            "hash": pa.array([one or None for _, one in rows], pa.uint64()),
        }
    )
    connection.register("asked_rows", asked)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE asked AS
        SELECT image, {_NAME.format(path="file")} AS name, hash FROM asked_rows"""
    )
    # Two hashes that differ in at most d bits agree wholly in one of d + 1 bands: only those pairs are compared.
    band = "(hash >> {shift}::UBIGINT) & {mask}::UBIGINT"
    bands = " UNION ".join(
        f"""SELECT asked.image, stored.dataset, stored.shard, stored.key
        FROM asked JOIN stored ON {band.format(shift=s, mask=m).replace("hash", "asked.hash")}
            = {band.format(shift=s, mask=m).replace("hash", "stored.hash")}
        WHERE bit_count(xor(asked.hash, stored.hash)) <= {distance}"""
        for s, m in _bands(distance + 1)
    )
    matches = connection.sql(
        f"""SELECT {quote(benchmark)} AS benchmark, image, dataset, shard, key,
               bool_or(by_name) AS by_name, bool_or(by_hash) AS by_hash
        FROM (SELECT image, dataset, shard, key, true AS by_name, false AS by_hash
              FROM asked JOIN stored USING (name)
              UNION ALL SELECT *, false, true FROM ({bands}))
        GROUP BY ALL ORDER BY ALL"""
    ).to_arrow_table()
    return Leakage(
        benchmark=benchmark,
        images=len(whole),
        unreadable=sum(not found for found in hashes),
        flat=sum(found == {0} for found in hashes),
        by_name=_distinct(matches, "by_name"),
        by_hash=_distinct(matches, "by_hash"),
        either=len(matches["image"].unique()),
        matches=matches,
    )


def _bands(count: int) -> Sequence[tuple[int, int]]:
    """64 bits in `count` bands: shift and mask of each."""
    edges = [64 * i // count for i in range(count + 1)]
    return [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]


def _hashes(picture: Picture, sides: Iterable[int | None]) -> set[int]:
    """As the store hashes images, decoded at each of these sizes (`max_side`). None where it cannot be read."""
    try:
        data = read_image_bytes(picture.source, picture.member, None, None)
        return {dhash(decode(data, max_pixels=ANY_PIXELS, max_side=side).image) for side in sides}
    except (OSError, KeyError, ImageError):
        return set()


def _hash(side: int | None, *place: Any) -> int | None:
    """The hash of a stored image; None where it cannot be read any more."""
    try:
        return dhash(decode(read_image_bytes(*place), max_pixels=ANY_PIXELS, max_side=side).image)
    except (OSError, KeyError, ImageError):
        return None


def _path(picture: Picture) -> str:
    """How `matches` names a picture."""
    return picture.source if picture.member is None else f"{picture.source}/{picture.member}"


def _distinct(matches: pa.Table, column: str) -> int:
    return len(matches.filter(matches[column])["image"].unique())
