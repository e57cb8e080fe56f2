"""Item-level rows: one per item, with every score, so that any figure can be computed again from the file."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Floats, Judged, Names
from macco.train.evaluation.scorer import OK

ITEMS: Final = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),  # unique in its subset
        pa.field("category", pa.string(), nullable=False),
        pa.field("images", pa.list_(pa.string())),
        pa.field("captions", pa.list_(pa.string())),  # options; null for retrieval and classification
        pa.field("status", pa.string(), nullable=False),  # ok, or why an image or a caption could not be read
        # Pictures against captions, image by image (retrieval, classification: the right one's best score,
        # then the best wrong ones, descending). Null where status is not ok.
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("text_scores", pa.list_(pa.float32())),  # caption pairs (0,1), (0,2), ..., (1,2), ...
        pa.field("answers", pa.map_(pa.string(), pa.bool_())),  # by criterion; null where status is not ok
    ]
)


@dataclass(frozen=True)
class ItemScores:
    """One item as it was scored. `right` holds the criteria, among them whether anything tied ("tie")."""

    item: Item
    status: str
    scores: Floats  # flat
    between: Floats | None
    right: dict[str, bool]


def table(benchmark: str, rows: Sequence[ItemScores]) -> pa.Table:
    """Rows under the schema ITEMS."""
    return pa.Table.from_pylist(
        [
            {
                "benchmark": benchmark,
                "subset": row.item.subset,
                "item": row.item.name,
                "category": row.item.category,
                "images": [str(picture) for picture in row.item.pictures],
                "captions": list(row.item.captions) or None,
                "status": row.status,
                "scores": row.scores if row.status == OK else None,
                "text_scores": row.between if row.status == OK else None,
                "answers": list(row.right.items()) if row.status == OK else None,
            }
            for row in rows
        ],
        schema=ITEMS,
    )


def judged(items: pa.Table) -> Judged:
    """What figures are computed from: the rows of one benchmark."""
    rights: list[list[tuple[str, bool]] | None] = items["answers"].to_pylist()
    criteria = dict.fromkeys(name for right in rights for name, _ in right or ())
    answers = [dict(right or ()) for right in rights]
    return Judged(
        subset=_names(items["subset"]),
        name=_names(items["item"]),
        category=_names(items["category"]),
        ok=np.array([status == OK for status in items["status"].to_pylist()], dtype=bool),
        right={
            name: np.array([answer.get(name, False) for answer in answers], dtype=bool) for name in criteria
        },
    )


def _names(column: Any) -> Names:
    return np.array(column.to_pylist(), dtype=object)


def write_items(tables: Sequence[pa.Table], path: Path) -> None:
    """Write all benchmarks' rows to one Parquet file."""
    data = BytesIO()
    pq.write_table(pa.concat_tables([ITEMS.empty_table(), *tables]), data, compression="zstd")
    put_file(path, data.getvalue())


def read_items(path: Path) -> pa.Table:
    """Raises UserError where there is no such file, or it holds something else."""
    if not path.is_file():
        raise UserError(f"no {path}: give folders that macco-train eval wrote")
    try:
        return pq.read_table(path, schema=ITEMS)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged, or not what macco-train eval wrote: {error}") from error
