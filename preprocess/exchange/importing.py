"""A MACCO TSV into a concept store, some images of it at a time, in processes.

A shard is some images with all their rows, wherever in the file these stand. It is known again by what its rows say, so
that a file that is as it was is passed over, one that grew is taken further, and one that was changed is refused.
"""

import gc
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from os import _exit
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from macco.pipeline.errors import UserError
from macco.pipeline.merge import put_together
from macco.pipeline.pictures import ImageError, Measured, decode, measure
from macco.pipeline.schema import NEGATIVE_KINDS, NEGATIVE_ROWS, NEGATIVES, OK, Status, sample_id
from macco.pipeline.store import Store
from macco.pipeline.urls import open_url, plain, stamps
from macco.preprocess.exchange.concepts import concepts_of
from macco.preprocess.exchange.records import IMPORTED, Layout, content_of, digest, layout, parse
from macco.preprocess.extraction.tables import BoxRows, Row, ShardTables
from macco.preprocess.sources import SourceImage
from macco.preprocess.sources.tables import item_of

ROWS_PER_SHARD = 1000  # of as many images; those that have several captions have more rows
HASH_SIDE: Final = (
    64  # pixels that a picture is decoded at to be hashed: enough for 9 x 8, and an eighth of the work
)

Log = Callable[[str], None]
Made = tuple[
    dict[str, pa.Table], int
]  # the tables of a shard, and how many negatives a store has no room for
Said = tuple[dict[str, Any] | None, str | None]  # a row as `parse` returns it


@dataclass(frozen=True)
class Part:
    """The rows of one shard, and how they are read. Small: it travels to workers."""

    shard: str
    dataset: str
    path: str
    image_root: str
    header: tuple[str, ...]
    line: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    starts: NDArray[np.int64]  # [images + 1]: where each image's rows begin
    input: dict[str, Any]  # for the shard's record
    negatives: bool
    decode: bool
    stage: bool  # write it beside what the store holds


def import_tsv(
    path: Path, out: str, image_root: str, dataset: str | None = None, workers: int = 1, *,
    decode: bool = False, replace: bool = False, log: Log = print,
) -> dict[str, int]:  # fmt: skip
    """Make a store of a MACCO training TSV whose images lie under `image_root`; return new rows by status.

    Goes on where a killed import stopped. Rows with one `filepath` are captions of one image. Scores are 1: the TSV
    has none. `workers` are processes. Of a JPEG the header is read; to `decode` it finds damage inside it, too, and
    makes its hash. To `replace` does those shards again that the file no longer agrees with, or whose images could not
    be read.

    Raises UserError for a file that is no such TSV, or was changed since it was imported, and where nothing can be
    written.
    """
    given = {"imported": IMPORTED, "file": path.name, "image_root": plain(image_root)}
    found = layout(path)
    statuses, left_out = Counter[str](), 0
    with closing(Store.create(out, given | ({"decode": True} if decode else {}))) as store:
        store.sweep_tables()
        parts, gone = _todo(store, found, dataset or path.stem, given["image_root"], decode, replace)
        for part, (tables, over) in zip(parts, _each(parts, workers), strict=True):
            counted = Counter(tables["samples"]["status"].to_pylist())
            record = {
                "shard": part.shard,
                "dataset": part.dataset,
                "input": part.input,
                "max_side": HASH_SIDE,
            }
            (store.stage if part.stage else store.commit)(part.shard, tables, record)
            statuses.update(counted)
            left_out += over
        if staged := [part.shard for part in parts if part.stage]:
            store.replace(staged, gone)
        put_together(store)
    if left_out:
        log(
            f"{left_out:,} negative captions are left out: a store has {len(NEGATIVE_KINDS)} of a caption at most"
        )
    return dict(statuses)


def _todo(
    store: Store, found: Layout, dataset: str, root: str, decode: bool, replace: bool
) -> tuple[list[Part], list[str]]:
    """The shards that are to be done, and those that are to go. Raises UserError for a file that was changed."""
    for name in store.staged():  # by an import that was killed
        store.unstage(name)
    path, held = str(found.path.absolute()), store.records()
    images = len(found.starts) - 1
    bounds = [(first, min(first + ROWS_PER_SHARD, images)) for first in range(0, images, ROWS_PER_SHARD)]
    planned = {f"{found.path.stem}-{n:05}": bound for n, bound in enumerate(bounds)}
    new = {name for name in planned if name not in held}
    other = [name for name in held if not _same(found, planned.get(name), held[name], dataset)]
    again = {name for name in held if replace and _unread(held[name])} | {*other}
    grown = len(other) == 1 and _grown(found, planned.get(other[0]), held[other[0]], dataset)
    if other and not grown and not replace:
        raise UserError(f"{_why(found, held[other[0]], dataset)}; --replace does its shards in {store.url} again, "
                        "or use another --out")  # fmt: skip
    fingerprint = stamps([path])[path]
    parts = []
    for name in (name for name in planned if name in new | again):
        first, last = planned[name]
        rows = found.rows(first, last)
        known = {"url": path, "fingerprint": fingerprint, "content": found.content(first, last)}
        parts.append(
            Part(
                name, dataset, path, root, found.header, found.line[rows], found.offset[rows],
                found.size[rows], found.starts[first : last + 1] - found.starts[first], known, found.negatives,
                decode, stage=name in again or (replace and bool(again)),
            )
        )  # fmt: skip
    return parts, sorted({*other} - planned.keys())


def _same(found: Layout, bound: tuple[int, int] | None, record: dict[str, Any], dataset: str) -> bool:
    content = record["input"].get("content")
    return bound is not None and record["dataset"] == dataset and found.content(*bound) == content


def _grown(found: Layout, bound: tuple[int, int] | None, record: dict[str, Any], dataset: str) -> bool:
    """Tell a shard that was not full, and with which the file's images still begin."""
    if bound is None or (content := record["input"].get("content")) is None:
        return False
    images = content["images"]
    return images < bound[1] - bound[0] and _same(found, (bound[0], bound[0] + images), record, dataset)


def _why(found: Layout, record: dict[str, Any], dataset: str) -> str:
    if record["dataset"] != dataset:
        return f"{found.path} was read with --dataset {record['dataset']!r}, not {dataset!r}"
    if "content" not in record["input"]:
        return f"shard {record['shard']} was imported by an earlier macco, each row as an image of its own"
    return f"{found.path} was changed since shard {record['shard']} was imported"


def _unread(record: dict[str, Any]) -> bool:
    """Tell a shard with images that could not be used: they may be there now."""
    return bool(record.get("statuses", {}).keys() - {OK, Status.BAD_ROW, Status.MISSING_CAPTION})


def _each(parts: Sequence[Part], workers: int) -> Iterator[Made]:
    """Do the parts, in order; at most two in flight for each worker."""
    workers = min(workers, len(parts))
    if workers <= 1:
        yield from map(import_part, parts)
        return
    # Spawned: a fork would hold the store's lock, and the threads of libraries that do not survive one.
    with ProcessPoolExecutor(workers, get_context("spawn"), _alone) as pool:
        under_way = deque[Future[Made]]()
        try:
            for part in parts:
                under_way.append(pool.submit(import_part, part))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process of the import was killed; the same command goes on from here"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _alone() -> None:
    """In a worker: Ctrl-C is for the parent to act on, and when that is killed there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # rows are many small objects without circles, which would be looked through again and again
    parent = parent_process()
    assert parent is not None

    def leave() -> None:
        wait([parent.sentinel])
        _exit(1)

    threading.Thread(target=leave, daemon=True).start()


def import_part(part: Part) -> Made:
    """Make the tables of one shard."""
    tables = ShardTables(part.dataset, part.shard)
    negatives: list[tuple[str, str, str]] = []
    left_out = 0
    content = content_of(part.header)
    with open(part.path, "rb") as stream:
        for first, last in zip(part.starts[:-1].tolist(), part.starts[1:].tolist(), strict=True):
            lines = part.line[first:last].tolist()
            said = list[Said]()
            for line, offset, size in zip(
                lines, part.offset[first:last].tolist(), part.size[first:last].tolist(), strict=True
            ):
                stream.seek(offset)
                data = stream.read(size)
                content.update(digest(data))
                said.append(parse(line, data, part.header))
            key = f"{lines[0]:09}"
            source, image, rows = _image(part, key, first, said)
            tables.add(source, image, rows, {})
            for row, (read, _) in zip(rows, said, strict=True):
                if read is not None and row.status == OK:
                    name = sample_id(part.dataset, part.shard, key, row.caption_id)
                    pairs = zip(NEGATIVE_KINDS, read["neg_caption"], strict=False)
                    negatives += [(name, *pair) for pair in pairs]
                    left_out += max(0, len(read["neg_caption"]) - len(NEGATIVE_KINDS))
    if content.hexdigest() != part.input["content"]["digest"]:
        raise UserError(f"{part.path} was changed while it was imported: give the command again")
    made = tables.finish()
    if part.negatives:
        columns = zip(*negatives, strict=True) if negatives else [()] * len(NEGATIVE_ROWS)
        made[NEGATIVES] = pa.table([pa.array(column, pa.string()) for column in columns], NEGATIVE_ROWS)
    return made, left_out


def _image(
    part: Part, key: str, number: int, said: Sequence[Said]
) -> tuple[SourceImage, Measured | None, list[Row]]:
    """One image with its rows, of which the first has this number in the shard."""
    member = next((row["filepath"] for row, _ in said if row is not None), None)
    if member is None:
        source, image = SourceImage(key, (), None, part.path), None
    else:
        source = item_of(key, (), member, f"filepath/{key}", part.path, part.image_root, follow=False)
        source, image = _seen(source, part.decode)
    rows = []
    for place, (row, problem) in enumerate(said):
        if row is None:
            rows.append(Row(place, number + place, None, Status.BAD_ROW, problem))
            continue
        made = Row(place, number + place, row["title"], source.status, source.error)
        if made.status == OK and not row["title"].strip():
            made.status, made.error = Status.MISSING_CAPTION, "caption is empty"
        if image is not None and made.status == OK:
            made.boxes, made.graph = _boxes(row, image), concepts_of(row)
        rows.append(made)
    return source, image, rows


def _seen(source: SourceImage, whole: bool) -> tuple[SourceImage, Measured | None]:
    """An image file looked at: its size, or why it cannot be used."""
    if source.status != OK:
        return source, None
    try:
        with open_url(source.source) as stream:
            return source, decode(stream.read(), max_side=HASH_SIDE) if whole else measure(stream)
    except FileNotFoundError:
        return replace(source, status=Status.MISSING_IMAGE, error=f"no file {source.source}"), None
    except ImageError as error:
        return replace(source, status=error.status, error=str(error)), None
    except (OSError, ValueError) as error:  # a folder, no permission, a name that cannot be one
        return replace(source, status=Status.UNREADABLE_IMAGE, error=str(error)), None


def _boxes(row: dict[str, Any], image: Measured) -> BoxRows:
    """The boxes of a row by phrase, in 0..1 of its image."""
    across, down = image.width, image.height
    return {
        phrase: [
            (_share(x0, across), _share(y0, down), _share(x1, across), _share(y1, down), 1.0)
            for x0, y0, x1, y1 in boxes
        ]
        for group in row["relation_attribute_phrase_bbox_list"]
        for phrase, boxes in group.items()
    }


def _share(pixels: float, side: int) -> float:
    return 0.0 if pixels <= 0 else 1.0 if pixels >= side else pixels / side
