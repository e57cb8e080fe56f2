"""Resized copies of a store's images, so that training decodes few pixels."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from io import BytesIO
from typing import Any

import pyarrow as pa
from PIL.Image import Resampling

from macco.pipeline.cache import CACHED, PIXELS, ImageCache
from macco.pipeline.errors import UserError
from macco.pipeline.memory import keep_freed
from macco.pipeline.pictures import ANY_PIXELS, ImageError, decode, read_image_bytes
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.preprocess.sources import Shard


def write_cache(
    store_url: str,
    out: str,
    *,
    short_side: int = 256,
    quality: int = 90,
    pixels: bool = False,
    workers: int = 1,
    log: Callable[[str], None] = print,
) -> int:
    """Write the images of every committed shard to a cache at `out`; return how many are new.

    Shards that are there already are passed over, so that the same command goes on after a kill. Images that
    can no longer be read are left out and counted: training then reads the original. `pixels` are kept as they are,
    not as JPEGs. `workers` are processes.
    Raises UserError for a store that is not there, or a cache made with other settings.
    """
    if short_side < 1 or not 1 <= quality <= 100:
        raise UserError(f"short side {short_side} and JPEG quality {quality}: pixels, and 1 to 100")
    store = Store.open(store_url)
    store.require_whole()
    settings: dict[str, Any] = {"short_side": short_side}
    settings |= {"form": PIXELS} if pixels else {"quality": quality}
    cache = ImageCache.create(out, settings)
    todo = sorted(store.committed() - cache.shards())
    written = lost = 0
    for number, (shard, new, left_out) in enumerate(
        _each(store_url, out, todo, short_side, None if pixels else quality, workers), 1
    ):
        written, lost = written + new, lost + left_out
        log(
            f"[{number}/{len(todo)}] {shard}: {new} images" + (f", {left_out} unreadable" if left_out else "")
        )
    log(f"{out}: {written} images in {len(todo)} new shards, {lost} unreadable")
    return written


def _each(
    store_url: str, out: str, shards: list[str], short_side: int, quality: int | None, workers: int
) -> Iterable[tuple[str, int, int]]:
    if workers <= 1:
        yield from (cache_shard(store_url, out, shard, short_side, quality) for shard in shards)
        return
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(cache_shard, store_url, out, shard, short_side, quality) for shard in shards]
        yield from (future.result() for future in as_completed(futures))


def cache_shard(
    store_url: str, out: str, shard: str, short_side: int, quality: int | None
) -> tuple[str, int, int]:
    """Cache one shard; return its name, and how many images were written and left out."""
    keep_freed()
    store = Store.open(store_url)
    samples = store.table("samples", shard).select(["key", "source", "member", "offset", "size", "status"])
    good = {row["key"]: row for row in samples.to_pylist() if row["status"] == OK}
    images = BytesIO()
    rows = []
    for key, source, offset, encoded in _encoded(Shard.of(store.shard(shard)), good):
        try:
            data = shrink(encoded, short_side, quality)
        except ImageError:
            continue
        rows.append((shard, key, source, offset, images.tell(), images.write(data)))
    ImageCache.open(out).commit(
        shard,
        images.getvalue(),
        pa.table([*zip(*rows, strict=True)], CACHED) if rows else CACHED.empty_table(),
    )
    return shard, len(rows), len(good) - len(rows)


def _encoded(
    shard: Shard | None, good: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, str, int | None, bytes]]:
    """Key, source, offset and bytes of the images wanted, as far as they can be read: the shard's, in one stream.

    Of an imported shard the rows alone say where its images lie.
    """
    if shard is None:
        for key, row in good.items():
            place = row["source"], row["member"], row["offset"], row["size"]
            with suppress(OSError, KeyError):
                yield key, row["source"], row["offset"], read_image_bytes(*place)
        return
    with suppress(OSError):  # the rest of a tar that has gone
        for image in shard.read():
            if image.key in good and image.image is not None:
                yield image.key, image.source, image.offset, image.image


def shrink(data: bytes, short_side: int, quality: int | None) -> bytes:
    """Re-encode an image, upright and RGB, with at most that short side in pixels. Raises ImageError.

    It is a JPEG, or, without a quality, a PPM.
    """
    image = decode(data, max_pixels=ANY_PIXELS).image
    scale = short_side / min(image.size)
    if scale < 1:
        size = math.ceil(image.width * scale), math.ceil(image.height * scale)
        image = image.resize(size, Resampling.BICUBIC, reducing_gap=3.0)
    out = BytesIO()
    if quality is None:
        image.save(out, "PPM")
    else:
        image.save(out, "JPEG", quality=quality)
    return out.getvalue()
