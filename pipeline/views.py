"""SQL text: strings and files of a store in it, and the views, for this package and the duckdb command line alike."""

from collections.abc import Sequence
from string import Template
from typing import Final

from macco.pipeline.schema import TABLES

# The objects whose boxes a row of `concepts` has: an object its own, an attribute its owner's, a relation both ends'.
GROUNDS: Final = (
    "CASE kind WHEN 'object' THEN [concept_id] WHEN 'attribute' THEN [owner_id] "
    "ELSE [subject_id, object_id] END"
)

_LITERAL: Final = str.maketrans({"*": "[*]", "?": "[?]", "[": "[[]"})

_SQL = Template("""\
-- Views over a concept store. Use: duckdb -init STORE/views.sql
-- They name its folder: once that is moved, write them anew with: macco-prep sql STORE --write-views
-- Only committed shards are visible: those that have a record in shards/.
CREATE OR REPLACE TEMP VIEW committed AS
    SELECT parse_filename(file, true, 'forward_slash') AS shard FROM glob($shards)
    WHERE shard <> '_schema';

-- One row per (image, caption), failed ones too: see status and error.
CREATE OR REPLACE TEMP VIEW samples AS
    SELECT * FROM $samples SEMI JOIN committed USING (shard);

-- One row per span of a concept. Concepts in several pieces have several rows (part 0, 1, ...).
CREATE OR REPLACE TEMP VIEW concepts AS
    SELECT * FROM $concepts SEMI JOIN committed USING (shard);

-- One row per box of an object.
CREATE OR REPLACE TEMP VIEW boxes AS
    SELECT * FROM $boxes SEMI JOIN committed USING (shard);

-- The boxes of every concept: an object's own, an attribute's owner's, a relation's subject's and object's.
CREATE OR REPLACE TEMP VIEW concept_boxes AS
    WITH grounded AS (
        SELECT concept_id, kind,
               unnest(CASE kind WHEN 'object' THEN ['self'] WHEN 'attribute' THEN ['owner']
                      ELSE ['subject', 'object'] END) AS role,
               unnest($grounds) AS object_concept_id
        FROM concepts WHERE part = 0
    )
    SELECT grounded.concept_id, kind, role, object_concept_id, boxes.* EXCLUDE (concept_id)
    FROM grounded JOIN boxes ON boxes.concept_id = grounded.object_concept_id;

-- One row per committed shard: its input, counts, seconds, and the size that images were decoded at.
CREATE OR REPLACE TEMP VIEW shards AS
    SELECT * FROM read_json($shards, hive_partitioning = false, columns = {
        shard: 'VARCHAR', dataset: 'VARCHAR', samples: 'BIGINT', concepts: 'BIGINT', boxes: 'BIGINT',
        statuses: 'MAP(VARCHAR, BIGINT)', seconds: 'MAP(VARCHAR, DOUBLE)', versions: 'MAP(VARCHAR, VARCHAR)',
        input: 'JSON', max_side: 'INTEGER'})
    WHERE shard IS NOT NULL;

-- Intersection over union of two boxes.
CREATE OR REPLACE TEMP MACRO box_iou(ax0, ay0, ax1, ay1, bx0, by0, bx1, by1) AS (
    WITH areas AS (SELECT
        greatest(0, least(ax1, bx1) - greatest(ax0, bx0)) * greatest(0, least(ay1, by1) - greatest(ay0, by0)) AS common,
        (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) AS total)
    SELECT common / nullif(total - common, 0) FROM areas);
""")


def quote(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def literal(path: str) -> str:
    """A path as a pattern of DuckDB's that means nothing else: it takes every name for a pattern."""
    return path.translate(_LITERAL)


def parquet(*patterns: str) -> str:
    """SQL that reads Parquet files: their own columns alone, whatever the folders above them are called."""
    return f"read_parquet([{', '.join(map(quote, patterns))}], hive_partitioning = false)"


def scan(root: str, table: str, files: Sequence[str]) -> str:
    """SQL that reads some Parquet files of a table of the store at `root`, given by their stems."""
    return _reader(table, *(literal(f"{root}/{table}/{file}.parquet") for file in files))


def _reader(table: str, *patterns: str) -> str:
    """SQL that reads a table's files; the concepts of former stores lack `denied`, which is then null."""
    read = parquet(*patterns)
    if table != "concepts":
        return read
    return f"(SELECT * FROM {read} UNION ALL BY NAME SELECT NULL::BOOLEAN AS denied WHERE false)"


def scan_all(root: str, table: str) -> str:
    """SQL that reads every Parquet file of a folder; those that begin with a dot are being written."""
    return _reader(table, f"{literal(f'{root}/{table}')}/[!.]*.parquet")


def views_sql(root: str) -> str:
    """The text of views.sql for the store at `root` (an absolute path or a URL)."""
    tables = {name: scan_all(root, name) for name in TABLES}
    shards = quote(f"{literal(root)}/shards/[!.]*.json")
    return _SQL.substitute(grounds=GROUNDS, shards=shards, **tables)
