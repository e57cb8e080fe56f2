"""What can be asked in SQL, as a page: every view with its columns, every macro.

    python -m macco.pipeline.reference > docs/sql.md

Types are DuckDB's own, of the views over no rows; what the columns of tables mean stands in `schema.py`.
"""

from typing import Final

import duckdb

from macco.pipeline.commits import INDEX
from macco.pipeline.groundings import all_boxes_sql
from macco.pipeline.schema import BOX_COLUMNS, CONCEPT_COLUMNS, NEGATIVE_KINDS, SAMPLE_COLUMNS, TABLES, Status
from macco.pipeline.tags import TAGS
from macco.pipeline.views import MACROS, TABLE_MACROS, VIEWS, shards_sql, views

_COLUMNS: Final = {
    "samples": {each.name: each.meaning for each in SAMPLE_COLUMNS},
    "concepts": {each.name: each.meaning for each in CONCEPT_COLUMNS},
    "boxes": {each.name: each.meaning for each in BOX_COLUMNS},
    "all_boxes": {"detector": "whose box it is: the store's own detector, or a name given with `--as`"},
    "concept_boxes": {
        "concept_id": "of the concept: an object, an attribute or a relation",
        "text": "its words; of a concept in several pieces the first",
        "role": "whose box it is: `self` of an object, `owner` of an attribute, `subject` or `object` of a relation",
        "object_concept_id": "concept_id of the object that the box was found for",
    },
    "triplets": {
        "concept_id": "of the relation",
        "subject": "lemma of its subject; null where that is a pronoun",
        "relation": "lemma of the relation",
        "object": "lemma of its object; null where that is a pronoun",
        "subject_text": "the subject's words, pieces joined by a space",
        "relation_text": "the relation's words, pieces joined by a space",
        "object_text": "the object's words, pieces joined by a space",
        "subject_id": "concept_id of the subject",
        "object_id": "concept_id of the object",
        "subject_box": "the subject's box of the highest score, as `subject_box.x0`; null where it has none",
        "object_box": "the object's",
        "subject_boxes": "how many boxes the subject has",
        "object_boxes": "how many boxes the object has",
        "denied": "the caption says that it is not so; null in stores of version 1",
    },
    "images": {
        "captions": "its captions in their order, those that there are",
        "samples": "rows of it in `samples`",
        "ok": "how many of these are `ok`",
        "objects": "in all its captions together",
        "attributes": "in all its captions together",
        "relations": "in all its captions together",
        "boxes": "of all its captions together",
    },
    "negatives": {
        "kind": f"what was changed: {', '.join(f'`{kind}`' for kind in NEGATIVE_KINDS)}",
        "negative": "the hard negative",
        "caption": "the caption that it was made of",
    },
    "units": {
        "unit": "0-based among those of its caption",
        "kind": "`entity`, an object with its adjectives, or `relation`, one with its ends",
        "text": "the unit in words",
        "foil_kind": "what was changed, or `imported`; null where it has no foil",
        "foil": "the unit made wrong; null where it has none",
        "caption": "the caption that it was made of",
    },
    "paraphrases": {
        "paraphrase": "a caption that says the same",
        "caption": "the caption of the source",
    },
    "shards": {
        "samples": "number of its rows",
        "concepts": "number of its rows (spans)",
        "boxes": "number of its rows",
        "statuses": "how many samples have which status",
        "seconds": "what each step took; `total` is all of it",
        "versions": "of the programs that made it",
        "input": "how its file was read, and what it was then",
        "max_side": "longest side of what the detector was shown, pixels",
    },
    "tags": {
        "sample_id": "dataset/shard/key/caption_id",
        "tag": "a word that someone put on it in `serve`",
        "at": "when",
    },
}

_MEANINGS: Final = {
    "samples": "One row per (image, caption): all of them, failed ones too.",
    "concepts": "One row per span. A concept in several pieces has several rows, which share concept_id: count "
    "concepts `WHERE part = 0`.",
    "boxes": "One row per box of an object, for each caption that names it, down to the detector's threshold.",
    "all_boxes": "The boxes of every detector that the store has any of (`extract --reground`); `boxes` are those of "
    "one.",
    "concept_boxes": "The boxes of every concept: an object's own, an attribute's owner's, a relation's subject's and "
    "object's, a row each.",
    "triplets": "One row per relation: subject, relation, object. An end that has several boxes is still one end: the "
    "row has its box of the highest score (of equal ones the rightmost) and says how many there are; "
    "all of them, in all pairs, are in `concept_boxes`. "
    "In a large store ask for some shards: `WHERE shard = '00000'` reads no others.",
    "images": "One row per image, with what its captions hold together.",
    "negatives": "One row per hard negative, beside the caption that it was made of. Empty before "
    "`macco-train negatives` or an import made any.",
    "units": "One row per foil of a unit, a part of a caption; one row for a unit without any. Empty before "
    "`macco-train units` or an import made any.",
    "paraphrases": "One row per caption that says the same as that of the source. Empty before `macco-train "
    "import-texts` brought any.",
    "shards": "One row per committed shard: its record.",
    "tags": "One row per tag of a sample.",
}

_CALLS: Final = {
    "iou": "Intersection over union of two rows, or structs, with x0, y0, x1, y1: "
    "`SELECT iou(a, b) FROM boxes a JOIN boxes b USING (sample_id)`, `iou(subject_box, object_box)`.",
    "box_iou": "The same of eight numbers.",
    "boxes_of": "The rows of `concept_boxes` with a lemma: `FROM boxes_of('dog') WHERE score > 0.5`.",
    "examples": "Some captions with a lemma, the same ones each time: `FROM examples('sit on', n := 20)`; "
    "columns sample_id, caption, kind, lemma, text, denied.",
}

_HEAD: Final = """\
# SQL over a store

    macco-prep sql STORE "SELECT kind, count(*) FROM concepts GROUP BY 1"   # one question
    macco-prep sql STORE                                                    # a shell: Tab completes, Ctrl-D leaves
    macco-prep sql STORE < questions.sql
    duckdb -init STORE/views.sql                                            # DuckDB's own command line

    macco.query(store, "FROM triplets LIMIT 9").to_pandas()                 # in a notebook
    macco.connect(store)                                                    # a DuckDB connection with all of this

The page of `macco-prep serve` takes conditions on the same views; `--read-only` is for questions of others. It is
DuckDB's dialect: `FROM images` is a whole question, `DESCRIBE images` lists columns; "end" and "offset", words of SQL,
stand in quotes. [Fifteen questions](cookbook.md) to start from.
This page is made of the program: `python -m macco.pipeline.reference`.
"""


def empty() -> duckdb.DuckDBPyConnection:
    """A connection with the views and macros of a store that holds nothing."""
    connection = duckdb.connect()
    for name, schema in TABLES.items():
        connection.register(f"no_{name}", schema.empty_table())
    for name, table in (("loose", INDEX.empty_table()), ("tags", TAGS.empty_table())):
        connection.register(name, table)
    connection.execute(shards_sql("loose", []))
    connection.execute(views(partly=False, empty=True, texts=()))
    connection.execute(all_boxes_sql("", "", {}, "boxes"))
    return connection


def columns(connection: duckdb.DuckDBPyConnection, view: str) -> list[tuple[str, str, str]]:
    """Name, type and meaning of a view's columns; a table's column means the same in every view."""
    known: dict[str, str] = {}
    for table in ("boxes", "concepts", "samples"):
        known |= _COLUMNS[table]
    known |= _COLUMNS[view]
    found = connection.execute(f"DESCRIBE {view}").fetchall()
    return [(name, kind, known[name]) for name, kind, *_ in found]


def page() -> str:
    """The text of docs/sql.md."""
    connection = empty()
    parts = [_HEAD]
    for view in (*VIEWS, "tags"):
        rows = "\n".join(f"| {name} | {kind} | {said} |" for name, kind, said in columns(connection, view))
        parts.append(f"## {view}\n\n{_MEANINGS[view]}\n\n| column | type | |\n|---|---|---|\n{rows}\n")
        if view == "samples":
            said = "\n".join(f"| {status} | {status.meaning} |" for status in Status)
            parts.append(f"A status is one of these:\n\n| status | |\n|---|---|\n{said}\n")
    listed = dict(
        connection.execute(
            "SELECT function_name, parameters FROM duckdb_functions() WHERE list_contains(?, function_name)",
            [[*MACROS, *TABLE_MACROS]],
        ).fetchall()
    )
    calls = "\n".join(
        f"| {name}({', '.join(listed[name])}) | {_CALLS[name]} |" for name in (*MACROS, *TABLE_MACROS)
    )
    parts.append(f"## Macros\n\n| macro | |\n|---|---|\n{calls}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
