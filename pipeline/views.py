"""SQL over a store: the views and macros, for this package and for the duckdb command line alike."""

from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from macco.pipeline.store import Store

_SQL = Template("""\
-- Views over the concept store at $root. Use: duckdb -init $root/views.sql
-- Only committed shards are visible: those that have a record in shards/.
CREATE OR REPLACE TEMP VIEW committed AS
    SELECT parse_filename(file, true) AS shard FROM glob('$quoted/shards/*.json')
    WHERE shard <> '_schema';

-- One row per (image, caption), failed ones too: see status and error.
CREATE OR REPLACE TEMP VIEW samples AS
    SELECT * FROM read_parquet('$quoted/samples/*.parquet') SEMI JOIN committed USING (shard);

-- One row per span of a concept. Concepts in several pieces have several rows (part 0, 1, ...).
CREATE OR REPLACE TEMP VIEW concepts AS
    SELECT * FROM read_parquet('$quoted/concepts/*.parquet') SEMI JOIN committed USING (shard);

-- One row per box of an object.
CREATE OR REPLACE TEMP VIEW boxes AS
    SELECT * FROM read_parquet('$quoted/boxes/*.parquet') SEMI JOIN committed USING (shard);

-- The boxes of every concept: an object's own, an attribute's owner's, a relation's subject's and object's.
CREATE OR REPLACE TEMP VIEW concept_boxes AS
    WITH grounded AS (
        SELECT concept_id, kind, 'self' AS role, concept_id AS object_concept_id
            FROM concepts WHERE kind = 'object' AND part = 0
        UNION ALL
        SELECT concept_id, kind, 'owner', owner_id FROM concepts WHERE kind = 'attribute' AND part = 0
        UNION ALL
        SELECT concept_id, kind, 'subject', subject_id FROM concepts WHERE kind = 'relation' AND part = 0
        UNION ALL
        SELECT concept_id, kind, 'object', object_id FROM concepts WHERE kind = 'relation' AND part = 0
    )
    SELECT grounded.concept_id, kind, role, object_concept_id, boxes.* EXCLUDE (concept_id)
    FROM grounded JOIN boxes ON boxes.concept_id = grounded.object_concept_id;

-- One row per committed shard: its input, counts and seconds.
CREATE OR REPLACE TEMP VIEW shards AS
    SELECT * FROM read_json('$quoted/shards/*.json', columns = {
        shard: 'VARCHAR', dataset: 'VARCHAR', samples: 'BIGINT', concepts: 'BIGINT', boxes: 'BIGINT',
        statuses: 'MAP(VARCHAR, BIGINT)', seconds: 'MAP(VARCHAR, DOUBLE)', versions: 'MAP(VARCHAR, VARCHAR)',
        input: 'JSON'})
    WHERE shard IS NOT NULL;

-- Intersection over union of two boxes.
CREATE OR REPLACE TEMP MACRO box_iou(ax0, ay0, ax1, ay1, bx0, by0, bx1, by1) AS (
    WITH areas AS (SELECT
        greatest(0, least(ax1, bx1) - greatest(ax0, bx0)) * greatest(0, least(ay1, by1) - greatest(ay0, by0)) AS common,
        (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) AS total)
    SELECT common / nullif(total - common, 0) FROM areas);
""")


def views_sql(root: str) -> str:
    """The text of views.sql for the store at `root` (an absolute path or a URL)."""
    return _SQL.substitute(root=root, quoted=root.replace("'", "''"))


def connect(store: "Store") -> "duckdb.DuckDBPyConnection":
    """A DuckDB connection, in memory, that has the store's views."""
    import duckdb

    connection = duckdb.connect()
    if not store.local:
        connection.register_filesystem(store.fs)
    connection.execute(views_sql(store.url))
    return connection


def dicts(cursor: "duckdb.DuckDBPyConnection", count: int | None = None) -> list[dict[str, Any]]:
    """The rows of an executed statement by column name: all, or the next `count`."""
    names = [column[0] for column in cursor.description or ()]
    rows = cursor.fetchall() if count is None else cursor.fetchmany(count)
    return [dict(zip(names, row, strict=True)) for row in rows]
