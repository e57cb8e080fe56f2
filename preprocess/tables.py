"""The rows of one shard, gathered by column and handed over as Arrow tables."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.concept import Concept
from pipeline.dhash import dhash
from pipeline.schema import OBJECT, OK, TABLES, sample_id
from preprocess.images import Decoded
from preprocess.sources import Item

Boxes = tuple[NDArray[np.float32], NDArray[np.float32]]  # [N, 4] x0, y0, x1, y1 in 0..1; [N] scores
Found = dict[str, Boxes]  # of one image, by phrase


@dataclass
class Row:
    """One (image, caption) on its way to the table `samples`."""

    caption_id: int
    number: int  # place in the shard
    caption: str | None
    status: str
    error: str | None


class ShardTables:
    """Builds the three tables of one shard."""

    def __init__(self, dataset: str, shard: str) -> None:
        self.dataset = dataset
        self.shard = shard
        self._columns: dict[str, dict[str, list[Any]]] = {name: defaultdict(list) for name in TABLES}

    def add(
        self,
        item: Item,
        image: Decoded | None,
        rows: Sequence[Row],
        graphs: Sequence[Sequence[Concept]],
        found: Found,
    ) -> None:
        """Add one image: all its rows, and the graphs of those that are ok, in the same order."""
        remaining = iter(graphs)
        picture = (image.width, image.height, dhash(image.image)) if image is not None else (None, None, None)
        for row in rows:
            name = sample_id(self.dataset, self.shard, item.key, row.caption_id)
            self._append(
                "samples",
                item,
                row,
                sample_id=name,
                row=row.number,
                caption=row.caption,
                **dict(zip(("width", "height", "dhash"), picture, strict=True)),
                source=item.source,
                member=item.member,
                offset=item.offset,
                size=item.size,
                status=row.status,
                error=row.error,
            )
            if row.status == OK:
                self._add_graph(item, row, name, next(remaining), found)

    def _add_graph(self, item: Item, row: Row, name: str, graph: Sequence[Concept], found: Found) -> None:
        def reference(place: int | None) -> str | None:
            return None if place is None else f"{name}/{place}"

        caption = row.caption or ""
        for place, concept in enumerate(graph):
            for part, span in enumerate(concept.spans):
                self._append(
                    "concepts",
                    item,
                    row,
                    concept_id=f"{name}/{place}",
                    sample_id=name,
                    kind=concept.kind,
                    part=part,
                    text=caption[span.start : span.end],
                    lemma=concept.lemma,
                    start=span.start,
                    end=span.end,
                    head=caption[concept.head.start : concept.head.end],
                    head_start=concept.head.start,
                    head_end=concept.head.end,
                    pos=concept.pos,
                    subject_id=reference(concept.subject),
                    object_id=reference(concept.object),
                    owner_id=reference(concept.owner),
                    phrase=concept.phrase,
                )
            if concept.kind == OBJECT and concept.phrase in found:
                boxes, scores = found[concept.phrase]
                for box, score in zip(boxes.tolist(), scores.tolist(), strict=True):
                    corners = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
                    self._append(
                        "boxes",
                        item,
                        row,
                        concept_id=f"{name}/{place}",
                        sample_id=name,
                        **corners,
                        score=score,
                    )

    def _append(self, table: str, item: Item, place: Row, /, **values: Any) -> None:
        columns = self._columns[table]
        columns["key"].append(item.key)
        columns["caption_id"].append(place.caption_id)
        for column, value in values.items():
            columns[column].append(value)

    def finish(self) -> dict[str, pa.Table]:
        """Return the tables, with the schemas of pipeline.schema."""
        tables = {}
        for name, schema in TABLES.items():
            columns = self._columns[name]
            count = len(columns["key"])
            constant = {"dataset": [self.dataset] * count, "shard": [self.shard] * count}
            tables[name] = pa.table(
                {field.name: constant.get(field.name, columns[field.name]) for field in schema}, schema
            )
        return tables
