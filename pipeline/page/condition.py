"""A condition of the user's on samples, concepts or boxes, as SQL of the samples that meet it."""

from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.query import reason
from macco.pipeline.readonly import conjuncts
from macco.pipeline.schema import BOXES, CONCEPTS, SAMPLES, TABLES
from macco.pipeline.views import GROUNDS

_CONCEPT: Final = [name for name in CONCEPTS.names if name not in SAMPLES.names]
_BOX: Final = [name for name in BOXES.names if name not in CONCEPTS.names]


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


_SPANS: Final = f"samples LEFT JOIN (SELECT sample_id, {_columns(_CONCEPT)} FROM concepts) USING (sample_id)"
# A concept's boxes: an object's own, an attribute's are its owner's, a relation's those of both its ends.
_GROUNDED: Final = f"(SELECT *, unnest({GROUNDS}) AS _object FROM concepts)"
_FOUND: Final = f"(SELECT concept_id AS _object, {_columns(_BOX)} FROM boxes) USING (_object)"
_BOTH: Final = f"{_GROUNDED} JOIN {_FOUND}"
_BOXES: Final = (
    f"samples LEFT JOIN (SELECT sample_id, {_columns(_CONCEPT)}, _object FROM {_GROUNDED}) USING (sample_id) "
    f"LEFT JOIN {_FOUND}"
)


def meeting(connection: duckdb.DuckDBPyConnection, where: str) -> str:
    """SQL of the samples that meet a condition.

    One that names columns of concepts or boxes is met by a sample that has one such concept or box. `connection` has
    the store's views. Raises UserError where it is no condition.
    """
    return f"(FROM samples WHERE sample_id IN (SELECT sample_id FROM {rows(connection, where)}))"


def rows(connection: duckdb.DuckDBPyConnection, where: str) -> str:
    """SQL, after FROM, of the rows that meet a condition: of the coarsest table whose columns it is about."""
    clauses = conjuncts(where)
    where = " AND ".join(f"({sql})" for sql in clauses) or "true"
    # Without samples these are quicker; but samples without concepts, or boxes, are no rows of theirs.
    alone = [
        name for name in ("concepts", "boxes") if any(_needs_one(connection, name, sql) for sql in clauses)
    ]
    problem = ""
    for relation in ["samples", *alone, *([_BOTH] if len(alone) > 1 else []), _SPANS, _BOXES]:
        found = f"{relation} WHERE {where}"
        try:
            connection.execute(f"EXPLAIN SELECT sample_id, shard, key FROM {found}").fetchall()
            return found
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            problem = reason(error)
    names = ", ".join(dict.fromkeys(name for schema in TABLES.values() for name in schema.names))
    raise UserError(f"--where {where!r}: DuckDB: {problem}; the columns are {names}")


def _needs_one(connection: duckdb.DuckDBPyConnection, table: str, where: str) -> bool:
    """Whether a clause is about a table's own columns alone, and is not met by a sample that has no row there."""
    own = _CONCEPT if table == "concepts" else _BOX
    fields = [TABLES[table].field(name).with_nullable(True) for name in own]
    connection.register("_none", pa.schema(fields).empty_table())
    try:
        ((met,),) = connection.execute(
            f"SELECT count(*) FROM (SELECT 1) LEFT JOIN _none ON true WHERE {where}"
        ).fetchall()
    except duckdb.InterruptException:  # which says nothing about the condition
        raise
    except duckdb.Error:
        return False
    finally:
        connection.unregister("_none")
    return bool(met == 0)
