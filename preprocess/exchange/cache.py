"""Resized copies of a store's images, so that training decodes few pixels."""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from io import BytesIO

import pyarrow as pa
from PIL.Image import Resampling

from macco.pipeline.cache import CACHED, ImageCache
from macco.pipeline.errors import UserError
from macco.pipeline.pictures import ImageError, decode
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.preprocess.sources import Shard


def write_cache(
    store_url: str,
    out: str,
    *,
    short_side: int = 256,
    quality: int = 90,
    workers: int = 1,
    log: Callable[[str], None] = print,
) -> int:
    """Write the images of every committed shard to a cache at `out`; return how many are new.

    Shards that are there already are passed over, so that the same command goes on after a kill. Images that
    can no longer be read are left out and counted: training then reads the original. `workers` are processes.
    Raises UserError for a store that is not there, or a cache made with other settings.
    """
    if short_side < 1 or not 1 <= quality <= 100:
        raise UserError(f"short side {short_side} and JPEG quality {quality}: pixels, and 1 to 100")
    store = Store.open(store_url)
    cache = ImageCache.create(out, {"short_side": short_side, "quality": quality})
    todo = sorted(store.committed() - cache.shards())
    written = lost = 0
    for number, (shard, new, left_out) in enumerate(
        _each(store_url, out, todo, short_side, quality, workers), 1
    ):
        written, lost = written + new, lost + left_out
        log(
            f"[{number}/{len(todo)}] {shard}: {new} images" + (f", {left_out} unreadable" if left_out else "")
        )
    log(f"{out}: {written} images in {len(todo)} new shards, {lost} unreadable")
    return written


def _each(
    store_url: str, out: str, shards: list[str], short_side: int, quality: int, workers: int
) -> Iterable[tuple[str, int, int]]:
    if workers <= 1:
        yield from (cache_shard(store_url, out, shard, short_side, quality) for shard in shards)
        return
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(cache_shard, store_url, out, shard, short_side, quality) for shard in shards]
        yield from (future.result() for future in as_completed(futures))


def cache_shard(store_url: str, out: str, shard: str, short_side: int, quality: int) -> tuple[str, int, int]:
    """Cache one shard; return its name, and how many images were written and left out."""
    store = Store.open(store_url)
    record = store.shard(shard)["input"]
    source = Shard(**{name: value for name, value in record.items() if name != "fingerprint"})
    samples = store.table("samples", shard)
    good = {row["key"] for row in samples.select(["key", "status"]).to_pylist() if row["status"] == OK}
    jpegs = BytesIO()
    rows = []
    for item in source.read():
        if item.key not in good or item.image is None:
            continue
        try:
            data = shrink(item.image, short_side, quality)
        except ImageError:
            continue
        rows.append((shard, item.key, item.source, item.offset, jpegs.tell(), jpegs.write(data)))
    ImageCache.open(out).commit(
        shard,
        jpegs.getvalue(),
        pa.table([*zip(*rows, strict=True)], CACHED) if rows else CACHED.empty_table(),
    )
    return shard, len(rows), len(good) - len(rows)


def shrink(data: bytes, short_side: int, quality: int) -> bytes:
    """Re-encode an image as an upright RGB JPEG of at most that short side, in pixels. Raises ImageError."""
    image = decode(data).image
    scale = short_side / min(image.size)
    if scale < 1:
        size = math.ceil(image.width * scale), math.ceil(image.height * scale)
        image = image.resize(size, Resampling.BICUBIC, reducing_gap=3.0)
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
