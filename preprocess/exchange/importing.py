"""A MACCO TSV into a concept store."""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from macco.pipeline.pictures import Decoded, ImageError, decode
from macco.pipeline.schema import Status
from macco.pipeline.store import Store
from macco.pipeline.urls import join
from macco.preprocess.exchange.tsv import IMPORTED, concepts_of, read_tsv
from macco.preprocess.extraction.tables import Boxes, Row, ShardTables
from macco.preprocess.sources import SourceImage

ROWS_PER_SHARD = 1000


Part = list[tuple[int, dict[str, Any] | None, str | None]]  # rows as read_tsv yields them


def import_tsv(
    path: Path, out: str, image_root: str, dataset: str | None = None, workers: int = 1
) -> dict[str, int]:
    """Make a store of a MACCO training TSV whose images lie under `image_root`; return new rows by status.

    Goes on where a killed import stopped. Scores are 1: the TSV has none. `workers` are processes.
    """
    store = Store.create(out, {"imported": IMPORTED, "file": path.name, "image_root": image_root})
    name, committed, statuses = dataset or path.stem, store.committed(), Counter[str]()
    todo = ((shard, part) for shard, part in _parts(path) if shard not in committed)
    for shard, tables in _each(name, todo, image_root, str(path), workers):
        counts = {table: rows.num_rows for table, rows in tables.items()}
        store.commit(shard, tables, {"shard": shard, "dataset": name, "input": {"url": str(path)}} | counts)
        statuses.update(tables["samples"]["status"].to_pylist())
    return dict(statuses)


def _parts(path: Path) -> Iterator[tuple[str, Part]]:
    rows = read_tsv(path)
    for number in count():
        if not (part := list(islice(rows, ROWS_PER_SHARD))):
            return
        yield f"{path.stem}-{number:05}", part


def _each(
    dataset: str, todo: Iterator[tuple[str, Part]], root: str, path: str, workers: int
) -> Iterator[tuple[str, dict[str, pa.Table]]]:
    if workers <= 1:
        yield from ((shard, _tables(dataset, shard, part, root, path)) for shard, part in todo)
        return
    with ProcessPoolExecutor(workers) as pool:
        under_way = deque[tuple[str, Future[dict[str, pa.Table]]]]()
        for shard, part in todo:
            under_way.append((shard, pool.submit(_tables, dataset, shard, part, root, path)))
            if len(under_way) > 2 * workers:
                first, future = under_way.popleft()
                yield first, future.result()
        yield from ((shard, future.result()) for shard, future in under_way)


def _tables(dataset: str, shard: str, part: Part, root: str, path: str) -> dict[str, pa.Table]:
    tables = ShardTables(dataset, shard)
    for place, (line, row, problem) in enumerate(part):
        _add(tables, place, line, row, problem, root, path)
    return tables.finish()


def _add(
    tables: ShardTables,
    place: int,
    line: int,
    row: dict[str, Any] | None,
    problem: str | None,
    root: str,
    path: str,
) -> None:
    key = f"{line:09}"
    if row is None:
        source = SourceImage(key, (), None, path, status=Status.BAD_ROW, error=problem)
        tables.add(source, None, [Row(0, place, None, Status.BAD_ROW, problem)], {})
        return
    file = join(root, row["filepath"])
    only, image = Row(0, place, row["title"]), None
    try:
        image = decode(Path(file).read_bytes())
    except OSError as bad:
        only.status, only.error = Status.MISSING_IMAGE, str(bad)
    except ImageError as bad:
        only.status, only.error = bad.status, str(bad)
    source = SourceImage(key, (row["title"],), None, file, row["filepath"])
    found = {}
    if image is not None:
        try:
            found, only.graph = dict(_boxes(row, image)), concepts_of(row)
        except (TypeError, ValueError, AttributeError) as bad:
            only.status, only.error = Status.BAD_ROW, f"line {line}: {bad}"
    tables.add(source, image, [only], found)


def _boxes(row: dict[str, Any], image: Decoded) -> Iterator[tuple[str, Boxes]]:
    scale = np.array([image.width, image.height] * 2)
    for group in row["relation_attribute_phrase_bbox_list"]:
        for phrase, boxes in group.items():
            corners = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4) / scale, 0, 1).astype(np.float32)
            yield phrase, (corners, np.ones(len(corners), np.float32))
