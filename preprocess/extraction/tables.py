"""The rows of one shard, gathered as tuples and handed over as Arrow tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from macco.pipeline.pictures import Decoded, Measured, dhash
from macco.pipeline.schema import OBJECT, OK, TABLES, Concept, Status, sample_id
from macco.preprocess.sources import SourceImage

Boxes = tuple[NDArray[np.float32], NDArray[np.float32]]  # [N, 4] x0, y0, x1, y1 in 0..1; [N] scores
Found = dict[str, Boxes]  # of one image, by phrase
BoxRows = dict[str, list[tuple[float, ...]]]  # the same as rows: x0, y0, x1, y1, score

_CONSTANT = ("dataset", "shard")


@dataclass
class Row:
    """One (image, caption) on its way to the table `samples`, with the concepts of a caption that is ok."""

    caption_id: int
    number: int  # place in the shard
    caption: str | None
    status: Status = OK
    error: str | None = None
    graph: Sequence[Concept] = ()
    boxes: BoxRows | None = None  # of this caption alone, by phrase; None: those of its image


class ShardTables:
    """Builds the three tables of one shard. Tuples are in the order of the schema, without the constants."""

    def __init__(self, dataset: str, shard: str) -> None:
        self.dataset = dataset
        self.shard = shard
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES}

    def add(self, source: SourceImage, image: Measured | None, rows: Sequence[Row], found: Found) -> None:
        """Add one image: all its rows, and the graphs of those that are ok. One that was only measured has no hash."""
        size = (None, None) if image is None else (image.width, image.height)
        code = dhash(image.image) if isinstance(image, Decoded) else None
        boxes = {phrase: _box_rows(*of) for phrase, of in found.items()}
        for row in rows:
            name = sample_id(self.dataset, self.shard, source.key, row.caption_id)
            ids = (name, source.key, row.caption_id)
            place = (source.source, source.member, source.offset, source.size, code)
            sample = (*ids, row.number, row.caption, *size, *place, row.status, row.error)
            self._rows["samples"].append(sample)
            if row.status == OK:
                self._add_graph(ids, row.caption or "", row.graph, boxes if row.boxes is None else row.boxes)

    def _add_graph(
        self, ids: tuple[str, str, int], caption: str, graph: Sequence[Concept], boxes: BoxRows
    ) -> None:
        names = [f"{ids[0]}/{place}" for place in range(len(graph))]
        add, add_box = self._rows["concepts"].append, self._rows["boxes"].append
        for name, (kind, spans, lemma, (first, last), pos, phrase, subject, object_, owner, denied) in zip(
            names, graph, strict=True
        ):
            head = (caption[first:last], first, last, pos)
            ends = (
                None if subject is None else names[subject],
                None if object_ is None else names[object_],
                None if owner is None else names[owner],
            )
            for part, (start, end) in enumerate(spans):
                add(
                    (
                        name,
                        *ids,
                        kind,
                        part,
                        caption[start:end],
                        lemma,
                        start,
                        end,
                        *head,
                        *ends,
                        phrase,
                        denied,
                    )
                )
            if kind == OBJECT and phrase in boxes and not denied:
                for box in boxes[phrase]:
                    add_box((name, *ids, *box))

    def finish(self) -> dict[str, pa.Table]:
        """Return the tables, with the schemas of pipeline.schema."""
        tables = {}
        for name, schema in TABLES.items():
            rows = self._rows[name]
            constant = {
                "dataset": pa.repeat(self.dataset, len(rows)),
                "shard": pa.repeat(self.shard, len(rows)),
            }
            fields = [field for field in schema if field.name not in _CONSTANT]
            columns = zip(*rows, strict=True) if rows else [()] * len(fields)
            arrays = {
                field.name: pa.array(column, field.type)
                for field, column in zip(fields, columns, strict=True)
            }
            tables[name] = pa.table({**arrays, **constant}).select(schema.names).cast(schema)
        return tables


def image_names(key: str, member: str | None, source: str) -> list[str]:
    """What an image may be called elsewhere: its key, the name of its file, that without folders or ending."""
    path = member or source
    base = path.rsplit("/", 1)[-1]
    return list(dict.fromkeys([key, path, base, base.rpartition(".")[0] or base]))


def _box_rows(corners: NDArray[np.float32], scores: NDArray[np.float32]) -> list[tuple[float, ...]]:
    return [(*box, score) for box, score in zip(corners.tolist(), scores.tolist(), strict=True)]
