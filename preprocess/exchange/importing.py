"""A MACCO TSV into a concept store."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from macco.pipeline.pictures import Decoded, ImageError, decode
from macco.pipeline.schema import Status
from macco.pipeline.store import Store
from macco.pipeline.urls import join
from macco.preprocess.exchange.tsv import IMPORTED, concepts_of, read_tsv
from macco.preprocess.extraction.tables import Boxes, Row, ShardTables
from macco.preprocess.sources import SourceImage

ROWS_PER_SHARD = 1000


def import_tsv(path: Path, out: str, image_root: str, dataset: str | None = None) -> dict[str, int]:
    """Make a store of a MACCO training TSV whose images lie under `image_root`; return rows by status.

    Goes on where a killed import stopped. Scores are 1: the TSV has none.
    """
    store = Store.create(out, {"imported": IMPORTED, "file": path.name, "image_root": image_root})
    rows = read_tsv(path)
    committed, statuses = store.committed(), dict[str, int]()
    number = 0
    while part := list(islice(rows, ROWS_PER_SHARD)):
        shard = f"{path.stem}-{number // ROWS_PER_SHARD:05}"
        if shard not in committed:
            tables = ShardTables(dataset or path.stem, shard)
            for place, (line, row, problem) in enumerate(part):
                _add(tables, place, line, row, problem, image_root, str(path))
            done = tables.finish()
            counts = {name: table.num_rows for name, table in done.items()}
            store.commit(
                shard,
                done,
                {"shard": shard, "dataset": dataset or path.stem, "input": {"url": str(path)}} | counts,
            )
            for status in done["samples"]["status"].to_pylist():
                statuses[status] = statuses.get(status, 0) + 1
        number += len(part)
    return statuses


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
