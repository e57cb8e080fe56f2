"""SQL text: strings and files of a store in it, and the views, for this package and the duckdb command line alike."""

from collections.abc import Collection, Mapping, Sequence
from string import Template
from typing import Final

from macco.pipeline.schema import TABLES

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

_SQL = Template("""\
-- One row per (image, caption), failed ones too: see status and error.
CREATE OR REPLACE TEMP VIEW samples AS $samples;

-- One row per span of a concept. Concepts in several pieces have several rows (part 0, 1, ...).
CREATE OR REPLACE TEMP VIEW concepts AS $concepts;

-- One row per box of an object.
CREATE OR REPLACE TEMP VIEW boxes AS $boxes;

-- The boxes of every concept: an object's own, an attribute's owner's, a relation's subject's and object's.
CREATE OR REPLACE TEMP VIEW concept_boxes AS
    WITH grounded AS (
        SELECT concept_id, kind, 'self' AS role, concept_id AS object_concept_id
        FROM concepts WHERE part = 0 AND kind = 'object'
        UNION ALL SELECT concept_id, kind, 'owner', owner_id FROM concepts WHERE part = 0 AND kind = 'attribute'
        UNION ALL SELECT concept_id, kind, 'subject', subject_id FROM concepts WHERE part = 0 AND kind = 'relation'
        UNION ALL SELECT concept_id, kind, 'object', object_id FROM concepts WHERE part = 0 AND kind = 'relation'
    )
    SELECT grounded.concept_id, kind, role, object_concept_id, boxes.* EXCLUDE (concept_id)
    FROM grounded JOIN boxes ON boxes.concept_id = grounded.object_concept_id;

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


def views(*, partly: bool, denied: bool = True, empty: bool = False) -> str:
    """The statements that make the views, over the table `committed` and a variable of file names for each table.

    partly: files hold rows that are not committed. denied: whether concepts have that column. empty: there are no
    files; tables `no_samples` and so on say what the columns are.
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
    return _SQL.substitute(tables)


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
    committed = _COMMITTED.substitute(
        shards=quote(f"{literal(root)}/shards/[!.]*.json"),
        packs=quote(f"{literal(root)}/packs/[!.]*.parquet"),
        columns=", ".join(f"{name}: '{kind}'" for name, kind in _COLUMNS.items()),
        names=", ".join(_COLUMNS),
        variables=variables,
    )
    return committed + views(partly=True, denied=False)
