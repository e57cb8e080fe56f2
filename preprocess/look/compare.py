"""Own annotations beside those of a MACCO TSV, on the captions that both have."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION
from macco.pipeline.store import Store
from macco.preprocess.exchange.concepts import concepts_of
from macco.preprocess.exchange.records import read_tsv
from macco.preprocess.look.score import Agreement, match_boxes

BATCH: Final = 20_000  # rows of the TSV in memory
KINDS: Final = (OBJECT, ATTRIBUTE, RELATION)

_ROWS = pa.schema([("line", pa.int64()), ("name", pa.string()), ("caption", pa.string())])
_SPANS = pa.schema([("line", pa.int64()), ("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
_BOXES = pa.schema([*_SPANS, *((name, pa.float64()) for name in ("x0", "y0", "x1", "y1"))])

# The samples of a batch's captions, each once: an image is told by its file's name.
_SHARED = """
    CREATE OR REPLACE TEMP TABLE shared AS
    SELECT line, any_value(sample_id) AS sample_id, any_value(width) AS width, any_value(height) AS height
    FROM (SELECT DISTINCT ON (name, caption) * FROM their_rows ORDER BY line) r
    JOIN (SELECT *, parse_filename(coalesce(member, source)) AS name, trim(caption) AS text
          FROM samples WHERE status = 'ok') s ON s.name = r.name AND s.text = r.caption
    GROUP BY line
"""
# An object is its head's words, as the TSV has it; others are all of theirs.
_OWN_SPANS = """
    CREATE OR REPLACE TEMP TABLE own_spans AS
    SELECT DISTINCT line, concept_id, kind,
           CASE kind WHEN 'object' THEN head_start ELSE start END AS start,
           CASE kind WHEN 'object' THEN head_end ELSE "end" END AS "end"
    FROM concepts JOIN shared USING (sample_id)
"""
_EQUAL = """
    WITH a AS (SELECT DISTINCT line, kind, start, "end" FROM own_spans),
         b AS (SELECT DISTINCT line, kind, start, "end" FROM their_spans SEMI JOIN shared USING (line))
    SELECT kind, count(*) FILTER (a.line IS NOT NULL AND b.line IS NOT NULL), count(a.line), count(b.line)
    FROM a FULL JOIN b USING (line, kind, start, "end") GROUP BY kind
"""
# Boxes of the concepts that both have, in pixels.
_OWN_BOXES = """
    SELECT DISTINCT line, s.start, s."end", x0 * width, y0 * height, x1 * width, y1 * height, score
    FROM own_spans s JOIN shared USING (line)
    SEMI JOIN their_spans t ON t.line = s.line AND t.kind = s.kind AND t.start = s.start AND t."end" = s."end"
    JOIN concept_boxes b ON b.concept_id = s.concept_id
    WHERE s.kind = ? AND score >= ? ORDER BY ALL DESC
"""
_THEIR_BOXES = """
    SELECT DISTINCT b.line, b.start, b."end", x0, y0, x1, y1, 1.0 FROM their_boxes b
    SEMI JOIN own_spans s ON b.line = s.line AND b.kind = s.kind AND b.start = s.start AND b."end" = s."end"
    WHERE b.kind = ? ORDER BY ALL
"""


def compare(store: Store, tsv: Path, threshold: float, iou: float = 0.5) -> dict[str, Any]:
    """Compare a store with a MACCO TSV on the captions of both: the same file name, the same words.

    Returns counts of rows; by kind, spans that are equal; and, of attributes and relations that both have at
    the same words, boxes that meet at `iou`, each once. A box of the store counts from `threshold` on.

    Raises UserError where they share no caption.
    """
    connection = connect(store, views=("samples", "concept_boxes"))
    spans, boxes, rows = _counter(), _counter(), Counter[str]()
    lines = read_tsv(tsv)
    while part := list(islice(lines, BATCH)):
        _batch(connection, part)
        rows["tsv"] += len(part)
        rows["bad"] += sum(row is None for _, row, _ in part)
        rows["shared"] += _one(connection, "SELECT count(*) FROM shared")
        for kind, *counts in connection.execute(_EQUAL).fetchall():
            _add(spans[kind], counts)
        for kind in (ATTRIBUTE, RELATION):
            own = connection.execute(_OWN_BOXES, [kind, threshold]).fetchall()
            found = match_boxes(own, connection.execute(_THEIR_BOXES, [kind]).fetchall(), iou)
            _add(boxes[kind], [found.hits, found.predicted, found.true])
    if not rows["shared"]:
        raise UserError(f"{store.url} and {tsv} share no caption of one image: they hold different pairs")
    return {
        "rows": {name: rows[name] for name in ("tsv", "bad", "shared")},
        "spans": {kind: Agreement(*spans[kind]) for kind in KINDS},
        "boxes": {kind: Agreement(*boxes[kind]) for kind in (ATTRIBUTE, RELATION)},
    }


def _counter() -> dict[str, list[int]]:
    return {kind: [0, 0, 0] for kind in KINDS}


def _add(onto: list[int], counts: list[int]) -> None:
    onto[:] = [a + b for a, b in zip(onto, counts, strict=True)]


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    number: int = connection.execute(sql).fetchall()[0][0]
    return number


def _batch(connection: duckdb.DuckDBPyConnection, part: list[tuple[int, dict[str, Any] | None, Any]]) -> None:
    """Make the tables of some rows of the TSV, and of what the store has of them."""
    rows: list[tuple[Any, ...]] = []
    spans: list[tuple[Any, ...]] = []
    boxes: list[tuple[Any, ...]] = []
    for line, row, _ in part:
        if row is None:
            continue
        rows.append((line, row["filepath"].rsplit("/", 1)[-1], row["title"].strip()))
        for span, found in _concepts(row):
            spans.append((line, *span))
            boxes += [(line, *span, *box) for box in found]
    for name, values, schema in (
        ("their_rows", rows, _ROWS), ("their_spans", spans, _SPANS), ("their_boxes", boxes, _BOXES)
    ):  # fmt: skip
        columns = zip(*values, strict=True) if values else [()] * len(schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        connection.register(name, pa.table(arrays, schema=schema))
    connection.execute(_SHARED)
    connection.execute(_OWN_SPANS)


def _concepts(row: dict[str, Any]) -> Iterator[tuple[tuple[str, int, int], list[list[float]]]]:
    """Kind, start and end of each word of a row, with the boxes of its phrase."""
    grounded = {
        phrase: boxes
        for group in row["relation_attribute_phrase_bbox_list"]
        for phrase, boxes in group.items()
    }
    concepts = concepts_of(row)
    for concept in concepts:
        if concept.kind == OBJECT and concept.phrase is not None:
            continue  # stands for a phrase, to hold its boxes
        end = concept.owner if concept.kind == ATTRIBUTE else concept.subject
        phrase = None if end is None else concepts[end].phrase
        yield (concept.kind, *concept.spans[0]), grounded.get(phrase or "", [])


def as_rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The comparison for `show`: counts, and shares of what each side has."""
    table: dict[str, dict[str, Any]] = {"rows": found["rows"]}
    for what in ("spans", "boxes"):
        for kind, one in found[what].items():
            table[f"{what}: {kind}"] = {
                "equal": one.hits, "own": one.predicted, "theirs": one.true,
                "share_of_own": round(one.precision, 4), "share_of_theirs": round(one.recall, 4),
            }  # fmt: skip
    return table
