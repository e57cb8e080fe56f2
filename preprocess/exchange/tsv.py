"""The MACCO authors' training TSV, written: one row per caption, lists as Python literals, boxes in pixels.

Its columns are those that their public loader reads. It holds words without positions: what is written
here and read back finds each word again by its first unused place in the caption.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import ATTRIBUTE, NEGATIVE_KINDS, NEGATIVE_ROWS, NEGATIVES, OBJECT, RELATION
from macco.pipeline.store import Store
from macco.preprocess.exchange.names import IMAGES, Names
from macco.preprocess.exchange.records import COLUMNS, IMPORTED

_CONCEPTS = f"""
    SELECT s.sample_id, s.caption, s.dataset, s.shard, s.key, s.source, s.member, s.width, s.height, s.packed,
           list(c ORDER BY CAST(split_part(c.concept_id, '/', -1) AS INTEGER), c.part)
               FILTER (c.concept_id IS NOT NULL) AS concepts
    FROM ({IMAGES}) s LEFT JOIN (FROM concepts WHERE denied IS NOT TRUE) c USING (sample_id)
    WHERE s.shard = ? AND s.status = 'ok' GROUP BY ALL ORDER BY any_value(s.row)
"""
_NEGATIVES = "SELECT sample_id, list(caption ORDER BY list_position(?, kind)) FROM made GROUP BY 1"

Boxes = dict[str, list[list[float]]]  # by concept: x0, y0, x1, y1 in 0..1, best first


def export_tsv(store: Store, out: Path, threshold: float, log: Callable[[str], None] = print) -> int:
    """Write the store as a MACCO training TSV; return the number of rows.

    `filepath` is the image's own path, or, for images inside a tar, the name that `export --format
    fiftyone` gives it; `neg_caption` are the store's hard negatives, where it has them.
    """
    connection = connect(store, views=("samples", "concepts", "shards"))
    names, imported = Names(connection), store.description()["settings"].get("imported") == IMPORTED
    lists_of = _lists_again if imported else _lists
    rows: list[list[Any]] = [list(COLUMNS)]
    for shard in sorted(store.committed()):
        boxes, negatives = _boxes(store, shard, threshold), dict[str, list[str]]()
        if store.exists(f"{NEGATIVES}/{shard}.parquet"):
            connection.register("made", _made(store, shard))
            negatives = dict(connection.execute(_NEGATIVES, [list(NEGATIVE_KINDS)]).fetchall())
        for row in dicts(connection.execute(_CONCEPTS, [shard])):
            lists = [*lists_of(row, boxes), negatives.get(row["sample_id"], []), []]
            rows.append([row["caption"], names(row), *map(repr, lists)])
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    put_file(out, text.getvalue().encode())
    return len(rows) - 1


def _made(store: Store, shard: str) -> pa.Table:
    """The negatives of a shard."""
    file = f"{NEGATIVES}/{shard}.parquet"
    try:
        return pq.read_table(pa.BufferReader(store.read(file)), columns=NEGATIVE_ROWS.names).cast(
            NEGATIVE_ROWS
        )
    except (ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{store.url}/{file} is no table of negatives ({error}): make them anew with: "
            f"macco-train negatives {store.url}"
        ) from error


def _boxes(store: Store, shard: str, threshold: float) -> Boxes:
    found: Boxes = {}
    for row in sorted(store.table("boxes", shard).to_pylist(), key=lambda row: -row["score"]):
        if row["score"] >= threshold:
            found.setdefault(row["concept_id"], []).append([row[name] for name in ("x0", "y0", "x1", "y1")])
    return found


def _concepts(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Concepts by id, in order, the text of one in pieces whole."""
    concepts: dict[str, dict[str, Any]] = {}
    for part in row["concepts"] or []:
        if part["part"]:
            concepts[part["concept_id"]]["text"] += " " + part["text"]
        else:
            concepts[part["concept_id"]] = dict(part)
    return concepts


def _pixels(row: dict[str, Any], boxes: list[list[float]]) -> list[list[float]]:
    """Boxes in pixels, with as many digits as give the same box again."""
    size = (row["width"], row["height"]) * 2
    return [[_digits(value, side) for value, side in zip(box, size, strict=True)] for box in boxes]


def _digits(value: float, side: int) -> float:
    rounded = (round(value * side, digits) for digits in range(1, 17))
    return next((pixels for pixels in rounded if np.float32(pixels / side) == value), value * side)


def _lists(row: dict[str, Any], boxes: Boxes) -> list[Any]:
    """The six columns from object_list on, of extracted concepts."""
    concepts = _concepts(row)
    words: dict[str, list[str]] = {OBJECT: [], RELATION: [], ATTRIBUTE: []}
    phrases: dict[str, list[str]] = {RELATION: [], ATTRIBUTE: []}
    grounded: dict[str, list[list[float]]] = {}
    for concept in concepts.values():
        kind = concept["kind"]
        words[kind].append(concept["head"] if kind == OBJECT else concept["text"])
        if kind == OBJECT:
            continue
        ends = [concept["owner_id"]] if kind == ATTRIBUTE else [concept["subject_id"], concept["object_id"]]
        heads = [concepts[end]["head"] for end in ends if end in concepts]
        phrase = " ".join(
            [concept["text"], *heads] if kind == ATTRIBUTE else [*heads[:1], concept["text"], *heads[1:]]
        )
        phrases[kind].append(phrase)
        if found := [box for end in ends for box in boxes.get(end or "", [])]:
            grounded[phrase] = _pixels(row, found)
    lists = [words[OBJECT], words[RELATION], words[ATTRIBUTE], phrases[RELATION], phrases[ATTRIBUTE]]
    return [*lists, [grounded] if grounded else []]


def _lists_again(row: dict[str, Any], boxes: Boxes) -> list[Any]:
    """The same of concepts that `concepts_of` made: what it makes of these is equal."""
    concepts = _concepts(row)
    of = {kind: [c for c in concepts.values() if c["kind"] == kind] for kind in (OBJECT, RELATION, ATTRIBUTE)}
    grounded = {
        c["phrase"]: _pixels(row, boxes.get(c["concept_id"], []))
        for c in of[OBJECT]
        if c["phrase"] is not None
    }
    words = [[c["text"] for c in of[kind]] for kind in (RELATION, ATTRIBUTE)]
    # A relation without boxes no longer knows its phrase, and must not take that of another.
    ends = [concepts.get(c["subject_id"]) for c in of[RELATION]]
    relations = [
        c["text"] if end is None else end["phrase"] for c, end in zip(of[RELATION], ends, strict=True)
    ]
    attributes = [c["phrase"] for c in of[ATTRIBUTE] if c["phrase"] is not None]
    objects = [c["text"] for c in of[OBJECT] if c["phrase"] is None]
    return [objects, *words, relations, attributes, [grounded] if grounded else []]
