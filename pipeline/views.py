"""SQL text: strings and files of a store in it, and the views, for this package and the duckdb command line alike."""

import re
from collections.abc import Collection, Mapping, Sequence
from string import Template
from typing import Final

from macco.pipeline.schema import NEGATIVES, PARAPHRASES, TABLES, TEXTS, UNITS

# The objects whose boxes a row of `concepts` has: an object its own, an attribute its owner's, a relation both ends'.
GROUNDS: Final = (
    "CASE kind WHEN 'object' THEN [concept_id] WHEN 'attribute' THEN [owner_id] "
    "ELSE [subject_id, object_id] END"
)

# Parquet files of a table by their stems; in a mapping, of each the shards that are wanted (None: all).
Files = Collection[str] | Mapping[str, Sequence[str] | None]

_LITERAL: Final = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})

# What the text of views.sql finds out by itself, and `connect` by Python.
_COMMITTED = Template("""\
-- Views over a concept store. Use: duckdb -init STORE/views.sql
-- They name its folder: once that is moved, write them anew with: macco-prep sql STORE --write-views
-- Only what is committed is visible, as it is when this is read: shards with a record in shards/, or in a pack.
CREATE OR REPLACE TEMP TABLE loose AS
    SELECT * FROM read_json($shards, hive_partitioning = false, columns = {$columns, file: 'VARCHAR', gone: 'BOOLEAN'})
    WHERE shard IS NOT NULL;
CREATE OR REPLACE TEMP TABLE committed AS
    SELECT shard, coalesce(file, shard) AS file FROM loose WHERE gone IS NOT TRUE
    UNION ALL
    SELECT shard, max(parse_filename(filename, true, 'forward_slash'))
    FROM read_parquet($packs, filename = true, hive_partitioning = false) ANTI JOIN loose USING (shard) GROUP BY shard;
$variables
CREATE OR REPLACE TEMP VIEW shards AS
    SELECT $names FROM loose WHERE gone IS NOT TRUE
    UNION ALL
    SELECT $names FROM (
        SELECT * EXCLUDE (file), parse_filename(filename, true, 'forward_slash') AS file
        FROM read_parquet($packs, filename = true, hive_partitioning = false)) SEMI JOIN committed USING (shard, file);
""")

_TEXT_FILES = Template("""\
SET VARIABLE ${table}_files = (
    SELECT CASE WHEN count(*) = 0 THEN $none ELSE $pattern END FROM glob($pattern));
""")

_FILES = Template("""\
SET VARIABLE $table = (
    SELECT list_distinct(list($folder || regexp_replace(file, '([*?\\[])', '[\\1]', 'g') || '.parquet'))
    FROM (SELECT file FROM committed UNION ALL SELECT '_schema'));
""")

# A record's columns, as the view `shards` has them.
_COLUMNS: Final = {
    "shard": "VARCHAR", "dataset": "VARCHAR", "samples": "BIGINT", "concepts": "BIGINT", "boxes": "BIGINT",
    "statuses": "MAP(VARCHAR, BIGINT)", "seconds": "MAP(VARCHAR, DOUBLE)", "versions": "MAP(VARCHAR, VARCHAR)",
    "input": "JSON", "max_side": "INTEGER",
}  # fmt: skip

# DuckDB holds the rows of a CTE that is named twice unless it is told not to, and then neither a condition nor the want
# of a column reaches what these are made of. That both ends are of a relation's shard is said for a condition on it.
_SQL: Final = """\
-- One row per (image, caption), failed ones too: see status and error.
CREATE OR REPLACE TEMP VIEW samples AS $samples;

-- One row per span of a concept. Concepts in several pieces have several rows (part 0, 1, ...).
CREATE OR REPLACE TEMP VIEW concepts AS $concepts;

-- One row per box of an object.
CREATE OR REPLACE TEMP VIEW boxes AS $boxes;

-- The boxes of every concept: an object's own, an attribute's owner's, a relation's subject's and object's.
CREATE OR REPLACE TEMP VIEW concept_boxes AS
    WITH grounded AS (
        SELECT concept_id, kind, lemma, text, 'self' AS role, concept_id AS object_concept_id
        FROM concepts WHERE part = 0 AND kind = 'object'
        UNION ALL SELECT concept_id, kind, lemma, text, 'owner', owner_id
        FROM concepts WHERE part = 0 AND kind = 'attribute'
        UNION ALL SELECT concept_id, kind, lemma, text, 'subject', subject_id
        FROM concepts WHERE part = 0 AND kind = 'relation'
        UNION ALL SELECT concept_id, kind, lemma, text, 'object', object_id
        FROM concepts WHERE part = 0 AND kind = 'relation'
    )
    SELECT grounded.concept_id, kind, lemma, text, role, object_concept_id, boxes.* EXCLUDE (concept_id)
    FROM grounded JOIN boxes ON boxes.concept_id = grounded.object_concept_id;

-- Intersection over union of two boxes.
CREATE OR REPLACE TEMP MACRO box_iou(ax0, ay0, ax1, ay1, bx0, by0, bx1, by1) AS (
    WITH areas AS (SELECT
        greatest(0, least(ax1, bx1) - greatest(ax0, bx0)) * greatest(0, least(ay1, by1) - greatest(ay0, by0)) AS common,
        (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) AS total)
    SELECT common / nullif(total - common, 0) FROM areas);

-- The same of two rows, or structs, that have x0, y0, x1, y1: iou(a, b).
CREATE OR REPLACE TEMP MACRO iou(a, b) AS box_iou(a.x0, a.y0, a.x1, a.y1, b.x0, b.y0, b.x1, b.y1);

-- One row per relation. The words of a concept in several pieces stand together; an end that is a pronoun is null. Of
-- an end's boxes it has the one of the highest score (of two, the rightmost), and how many there are.
CREATE OR REPLACE TEMP VIEW triplets AS
    WITH more AS NOT MATERIALIZED (
        SELECT concept_id, string_agg(text, ' ' ORDER BY part) AS text FROM concepts WHERE part > 0 GROUP BY concept_id
    ), whole AS NOT MATERIALIZED (
        SELECT concepts.* REPLACE (concat_ws(' ', concepts.text, more.text) AS text)
        FROM concepts LEFT JOIN more ON more.concept_id = concepts.concept_id WHERE part = 0
    ), best AS NOT MATERIALIZED (
        SELECT shard, concept_id, max({'score': score, 'x0': x0, 'y0': y0, 'x1': x1, 'y1': y1}) AS box,
               count(*) AS boxes
        FROM boxes GROUP BY shard, concept_id
    )
    SELECT r.concept_id, r.sample_id, r.dataset, r.shard, r.key, r.caption_id,
           s.lemma AS subject, r.lemma AS relation, o.lemma AS object,
           s.text AS subject_text, r.text AS relation_text, o.text AS object_text,
           r.subject_id, r.object_id, sb.box AS subject_box, ob.box AS object_box,
           coalesce(sb.boxes, 0) AS subject_boxes, coalesce(ob.boxes, 0) AS object_boxes, r.denied
    FROM (FROM whole WHERE kind = 'relation') r
    LEFT JOIN (FROM whole WHERE kind = 'object') s ON s.shard = r.shard AND s.concept_id = r.subject_id
    LEFT JOIN (FROM whole WHERE kind = 'object') o ON o.shard = r.shard AND o.concept_id = r.object_id
    LEFT JOIN best sb ON sb.shard = r.shard AND sb.concept_id = r.subject_id
    LEFT JOIN best ob ON ob.shard = r.shard AND ob.concept_id = r.object_id;

-- One row per image.
CREATE OR REPLACE TEMP VIEW images AS
    WITH own AS (
        SELECT dataset, shard, key, list(caption ORDER BY caption_id) FILTER (caption IS NOT NULL) AS captions,
               count(*) AS samples, count(*) FILTER (status = 'ok') AS ok,
               max(width) AS width, max(height) AS height,
               arg_min(source, "row") AS source, arg_min(member, "row") AS member,
               arg_min("offset", "row") AS "offset", arg_min(size, "row") AS size, arg_min(dhash, "row") AS dhash
        FROM samples GROUP BY dataset, shard, key
    ), said AS (
        SELECT dataset, shard, key, count(*) FILTER (kind = 'object') AS objects,
               count(*) FILTER (kind = 'attribute') AS attributes, count(*) FILTER (kind = 'relation') AS relations
        FROM concepts WHERE part = 0 GROUP BY dataset, shard, key
    ), found AS (
        SELECT dataset, shard, key, count(*) AS boxes FROM boxes GROUP BY dataset, shard, key
    )
    SELECT dataset, shard, key, width, height, coalesce(captions, []) AS captions, samples, ok,
           coalesce(objects, 0) AS objects, coalesce(attributes, 0) AS attributes, coalesce(relations, 0) AS relations,
           coalesce(boxes, 0) AS boxes, source, member, "offset", size, dhash
    FROM own LEFT JOIN said USING (dataset, shard, key) LEFT JOIN found USING (dataset, shard, key);

-- Hard negatives, each beside the caption that it was made of; none where none were made or imported.
CREATE OR REPLACE TEMP VIEW negatives AS
    SELECT n.sample_id, s.dataset, s.shard, s.key, s.caption_id, n.kind, n.caption AS negative, s.caption
    FROM ($negatives) n JOIN samples s ON s.sample_id = n.sample_id;

-- Parts of captions with foils of their own; none where none were made or imported.
CREATE OR REPLACE TEMP VIEW units AS
    SELECT u.sample_id, s.dataset, s.shard, s.key, s.caption_id, u.unit, u.kind, u.text, u.foil_kind, u.foil, s.caption
    FROM ($units) u JOIN samples s ON s.sample_id = u.sample_id;

-- Captions that say the same as those of the source; none where none were imported.
CREATE OR REPLACE TEMP VIEW paraphrases AS
    SELECT p.sample_id, s.dataset, s.shard, s.key, s.caption_id, p.caption AS paraphrase, s.caption
    FROM ($paraphrases) p JOIN samples s ON s.sample_id = p.sample_id;

-- The boxes of what has this lemma: FROM boxes_of('dog').
CREATE OR REPLACE TEMP MACRO boxes_of(word) AS TABLE SELECT * FROM concept_boxes WHERE lemma = lower(word);

-- Some captions with this lemma, the same ones each time: FROM examples('dog'), FROM examples('sit on', n := 20).
CREATE OR REPLACE TEMP MACRO examples(word, n := 5) AS TABLE
    SELECT c.sample_id, s.caption, c.kind, c.lemma, c.text, c.denied
    FROM concepts c JOIN samples s ON s.sample_id = c.sample_id
    WHERE c.lemma = lower(word) AND c.part = 0 ORDER BY hash(c.concept_id), c.concept_id LIMIT n;
"""

_TEXT_COLUMNS: Final = {
    NEGATIVES: {"sample_id": "VARCHAR", "kind": "VARCHAR", "caption": "VARCHAR"},
    UNITS: {
        "sample_id": "VARCHAR", "unit": "INTEGER", "kind": "VARCHAR", "text": "VARCHAR", "foil_kind": "VARCHAR",
        "foil": "VARCHAR",
    },
    PARAPHRASES: {"sample_id": "VARCHAR", "caption": "VARCHAR"},
}  # fmt: skip
_WORD: Final = re.compile(r"\w+")
_MADE: Final = re.compile(r"^CREATE OR REPLACE TEMP (?:VIEW|MACRO) (\w+)", re.M)
# The statement of each, with what is said above it; `all_boxes` and `shards` are made apart.
_STATEMENTS: Final = {_MADE.findall(text)[0]: text for text in _SQL.strip().split("\n\n")}

# Views and macros over the three tables and the records, in the order of docs/sql.md; `connect` makes `tags`, too.
VIEWS: Final = (*TABLES, "all_boxes", "concept_boxes", "triplets", "images", *TEXTS, "shards")
MACROS: Final = ("iou", "box_iou")  # of values
TABLE_MACROS: Final = ("boxes_of", "examples")  # of rows: they stand after FROM


def quote(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def literal(path: str) -> str:
    """A path as a pattern of DuckDB's that means nothing else: it takes every name for a pattern."""
    return path.translate(_LITERAL)


def parquet(*patterns: str) -> str:
    """SQL that reads Parquet files: their own columns alone, whatever the folders above them are called."""
    return f"read_parquet([{', '.join(map(quote, patterns))}], hive_partitioning = false)"


def scan(root: str, table: str, files: Files) -> str:
    """SQL that reads some Parquet files of a table of the store at `root`."""
    parts = dict(files) if isinstance(files, Mapping) else dict.fromkeys(files)
    whole = [file for file, shards in parts.items() if shards is None]
    pieces = (
        [f"SELECT * FROM {_reader(table, *(_file(root, table, file) for file in whole))}"] if whole else []
    )
    for file, shards in parts.items():
        if shards is not None:
            names = ", ".join(map(quote, shards)) or "NULL"
            pieces.append(
                f"SELECT * FROM {_reader(table, _file(root, table, file))} WHERE shard IN ({names})"
            )
    return (
        pieces[0].removeprefix("SELECT * FROM ")
        if whole and len(pieces) == 1
        else f"({' UNION ALL '.join(pieces)})"
    )


def _file(root: str, table: str, file: str) -> str:
    return literal(f"{root}/{table}/{file}.parquet")


def _reader(table: str, *patterns: str) -> str:
    """SQL that reads a table's files; the concepts of former stores lack `denied`, which is then null."""
    read = parquet(*patterns)
    if table != "concepts":
        return read
    return f"(SELECT * FROM {read} UNION ALL BY NAME SELECT NULL::BOOLEAN AS denied WHERE false)"


def scan_all(root: str, table: str) -> str:
    """SQL that reads every Parquet file of a folder; those that begin with a dot are being written."""
    return _reader(table, f"{literal(f'{root}/{table}')}/[!.]*.parquet")


def view_files(root: str, files: Collection[str], table: str) -> list[str]:
    """What the variable of a table's view holds: patterns of its files."""
    return [_file(root, table, file) for file in files]


def text_files(root: str, table: str) -> str:
    """A pattern of the files of one of TEXTS, those that begin with a dot are being written."""
    return f"{literal(root)}/{table}/[!.]*.parquet"


def words(sql: str) -> set[str]:
    """The words of some SQL, whose names have no case: among them the views that it asks."""
    return {*_WORD.findall(sql.lower())}


def made_of(names: Collection[str]) -> set[str]:
    """These views and macros, and all that they are made of."""
    found = {*names} | ({"boxes"} if "all_boxes" in names else set())
    for name, statement in reversed(_STATEMENTS.items()):  # what one is made of stands above it
        if name in found:
            found.update(_WORD.findall(statement))
    return found & {*_STATEMENTS, *names}


def views(
    names: Collection[str] = (*VIEWS, *MACROS, *TABLE_MACROS),
    *,
    partly: bool,
    denied: bool = True,
    empty: bool = False,
    texts: Collection[str] = TEXTS,
) -> str:
    """The statements that make views and macros, over the table `committed` and a variable of files for each.

    names: of those that are made, in any order; what they are made of must be among them.
    partly: files hold rows that are not committed. denied: whether concepts have that column. empty: there are no
    files; tables `no_samples` and so on say what the columns are. texts: those of TEXTS of which there are files.
    """
    tables = {}
    for name in TABLES:
        read = f"read_parquet(getvariable('{name}_files'), hive_partitioning = false{', filename = true' * partly})"
        sql = f"SELECT * FROM {read}"
        if empty:
            sql = f"SELECT * FROM no_{name}"
        elif partly:
            sql = (
                f"SELECT * EXCLUDE (filename) FROM {read} AS rows SEMI JOIN committed ON rows.shard = committed.shard "
                "AND parse_filename(filename, true, 'forward_slash') = committed.file"
            )
        if name == "concepts" and not denied:
            sql = f"SELECT * FROM ({sql}) UNION ALL BY NAME SELECT NULL::BOOLEAN AS denied WHERE false"
        tables[name] = sql
    for name, columns in _TEXT_COLUMNS.items():  # what made them may have left columns out
        no_row = (
            f"SELECT {', '.join(f'NULL::{kind} AS {column}' for column, kind in columns.items())} WHERE false"
        )
        read = f"SELECT * FROM read_parquet(getvariable('{name}_files'), hive_partitioning = false)"
        tables[name] = f"{read} UNION ALL BY NAME {no_row}" if name in texts else no_row
    return "\n\n".join(
        Template(statement).substitute(tables) for name, statement in _STATEMENTS.items() if name in names
    )


def shards_sql(loose: str, packs: Sequence[str]) -> str:
    """The statement that makes the view `shards`: of a table of records, and packs' files."""
    names = ", ".join(_COLUMNS)
    sql = f"SELECT {names} FROM {loose}"
    if packs:
        sql += f" UNION ALL SELECT {names} FROM {parquet(*packs)} SEMI JOIN committed USING (shard, file)"
    return f"CREATE OR REPLACE TEMP VIEW shards AS SELECT * REPLACE (input::JSON AS input) FROM ({sql})"


def views_sql(root: str) -> str:
    """The text of views.sql for the store at `root` (an absolute path or a URL), for the duckdb command."""
    variables = "".join(
        _FILES.substitute(table=f"{name}_files", folder=quote(f"{literal(root)}/{name}/")) for name in TABLES
    )
    none = quote(f"{literal(root)}/concepts/_schema.parquet")  # `read_parquet` must find something
    variables += "".join(
        _TEXT_FILES.substitute(table=name, pattern=quote(text_files(root, name)), none=none) for name in TEXTS
    )
    committed = _COMMITTED.substitute(
        shards=quote(f"{literal(root)}/shards/[!.]*.json"),
        packs=quote(f"{literal(root)}/packs/[!.]*.parquet"),
        columns=", ".join(f"{name}: '{kind}'" for name, kind in _COLUMNS.items()),
        names=", ".join(_COLUMNS),
        variables=variables,
    )
    return committed + views(partly=True, denied=False)
