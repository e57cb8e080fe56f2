"""The MACCO authors' training TSV: one row per caption, lists as Python literals, boxes in pixels.

Its columns are those that their public loader reads. It holds words without positions: what is written
here and read back finds each word again by its first unused place in the caption.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span
from macco.pipeline.store import Store
from macco.preprocess.exchange.coco import file_name
from macco.preprocess.exchange.literals import literal, phrase_boxes, words

COLUMNS = (
    "title", "filepath", "object_list", "relation_list", "attribute_list", "relation_phrase_list",
    "attribute_phrase_list", "relation_attribute_phrase_bbox_list", "neg_caption", "neg_image",
)  # fmt: skip
READERS = dict.fromkeys(COLUMNS[2:7], words) | {
    COLUMNS[7]: phrase_boxes, "neg_caption": literal, "neg_image": literal
}  # fmt: skip

_CONCEPTS = """
    SELECT s.sample_id, s.caption, s.dataset, s.shard, s.key, s.source, s.member, s.width, s.height,
           list(c ORDER BY c.concept_id, c.part) FILTER (c.concept_id IS NOT NULL) AS concepts
    FROM samples s LEFT JOIN (FROM concepts WHERE denied IS NOT TRUE) c USING (sample_id)
    WHERE s.shard = ? AND s.status = 'ok' GROUP BY ALL ORDER BY any_value(s.row)
"""
_BOXES = """
    SELECT concept_id, list([x0, y0, x1, y1] ORDER BY score DESC) FROM boxes
    WHERE shard = ? AND score >= ? GROUP BY concept_id
"""


def export_tsv(store: Store, out: Path, threshold: float) -> int:
    """Write the store as a MACCO training TSV; return the number of rows.

    `filepath` is the image's own path, or, for images inside a tar, the name that `export --format
    fiftyone` gives it.
    """
    connection = connect(store)
    rows: list[list[Any]] = [list(COLUMNS)]
    for shard in sorted(store.committed()):
        boxes = dict(connection.execute(_BOXES, [shard, threshold]).fetchall())
        cursor = connection.execute(_CONCEPTS, [shard])
        rows += [_line(row, boxes) for row in dicts(cursor)]
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    put_file(out, text.getvalue().encode())
    return len(rows) - 1


def _line(row: dict[str, Any], boxes: dict[str, list[list[float]]]) -> list[Any]:
    concepts: dict[str, dict[str, Any]] = {}
    for part in row["concepts"] or []:
        known = concepts.setdefault(part["concept_id"], dict(part))
        if known is not part and part["part"]:
            known["text"] += " " + part["text"]
    size = (row["width"], row["height"]) * 2

    def pixels(concept_id: str | None) -> list[list[float]]:
        found = boxes.get(concept_id or "", [])
        return [[round(value * scale, 1) for value, scale in zip(box, size, strict=True)] for box in found]

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
        if found := [box for end in ends for box in pixels(end)]:
            grounded[phrase] = found
    single = row["source"].endswith((".tar", ".tar.gz", ".tgz", ".parquet"))
    path = file_name(row) if single else row["member"] or row["source"]
    lists = [words[OBJECT], words[RELATION], words[ATTRIBUTE], phrases[RELATION], phrases[ATTRIBUTE]]
    return [row["caption"], path, *map(repr, lists), repr([grounded] if grounded else []), "[]", "[]"]


def read_tsv(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
    """Yield (line, row, problem) of a MACCO TSV, lists read as literals (never evaluated)."""
    csv.field_size_limit(2**24)
    try:
        stream = path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    with stream:
        reader = csv.DictReader(stream, delimiter="\t")
        missing = set(COLUMNS[:7]) - set(reader.fieldnames or ())
        if missing:
            raise UserError(f"{path} is no MACCO TSV: it has no column {sorted(missing)[0]!r}")
        for row in reader:
            try:
                literals = {name: READERS[name](row.get(name) or "[]") for name in COLUMNS[2:]}
                yield reader.line_num, {name: row[name] or "" for name in COLUMNS[:2]} | literals, None
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                yield reader.line_num, None, f"line {reader.line_num}: {error}"


def concepts_of(row: dict[str, Any]) -> list[Concept]:
    """The concepts of a TSV row; words that the caption does not hold are left out.

    Each grounded phrase becomes an object that holds its boxes: a relation's subject and object, or an
    attribute's owner. The TSV does not say which box of a relation is whose.
    """
    caption: str = row["title"]
    used: set[tuple[str, int]] = set()

    def place(kind: str, word: str) -> Span | None:
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", caption, re.IGNORECASE):
            if (kind, match.start()) not in used:
                used.add((kind, match.start()))
                return Span(*match.span())
        return None

    concepts: list[Concept] = []
    for word in row["object_list"]:
        if span := place(OBJECT, str(word)):
            concepts.append(Concept(OBJECT, (span,), word.lower(), span, "NOUN"))
    phrases: dict[str, int] = {}
    for phrase in dict.fromkeys(key for group in row["relation_attribute_phrase_bbox_list"] for key in group):
        found = [
            match
            for word in str(phrase).split()
            if (match := re.search(rf"(?<!\w){re.escape(word)}(?!\w)", caption))
        ]
        if found:
            span = Span(min(m.start() for m in found), max(m.end() for m in found))
            phrases[phrase] = len(concepts)
            concepts.append(Concept(OBJECT, (span,), phrase.lower(), Span(*found[-1].span()), "NOUN", phrase))
    taken: set[tuple[str, str]] = set()
    for kind, listed, column in (
        (ATTRIBUTE, row["attribute_list"], "attribute_phrase_list"),
        (RELATION, row["relation_list"], "relation_phrase_list"),
    ):
        for word in listed:
            if (span := place(kind, str(word))) is None:
                continue
            fitting = (p for p in row[column] if f" {word} " in f" {p} " and (word, p) not in taken)
            phrase = next(fitting, None)
            taken.add((word, phrase or ""))
            end = phrases.get(phrase) if phrase is not None else None
            if kind == ATTRIBUTE:
                concepts.append(Concept(kind, (span,), word.lower(), span, "ADJ", phrase, owner=end))
            else:
                concepts.append(Concept(kind, (span,), word.lower(), span, "VERB", subject=end, object=end))
    return concepts
