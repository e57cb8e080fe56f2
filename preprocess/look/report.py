"""What a store holds, in figures: for people who look before they train. All of it is counted by DuckDB, but for the
shares that masking draws from and masks, which are those of a sample of captions."""

from typing import Any, Final

import duckdb
import numpy as np

from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import ATTRIBUTE, NEGATIVES, OBJECT, RELATION, TABLES, Status
from macco.pipeline.store import Store
from macco.preprocess.look.masked import masking

EXAMPLES: Final = 3  # of each kind of failure, and of captions without a concept
STEPS: Final = 20  # bins of scores, and thresholds
GRID: Final = 14  # patches along a side, as a ViT-B/16 has at 224 pixels; and cells of the map of centres
TOGETHER: Final = 12  # of the commonest objects, which stand in one caption

_COUNTS = """
    SELECT (SELECT count(*) FROM shards) AS shards, (SELECT count(*) FROM samples) AS captions,
           (SELECT count(*) FROM samples WHERE status = 'ok') AS ok,
           (SELECT count(*) FROM (SELECT DISTINCT dataset, shard, key FROM samples)) AS images,
           (SELECT count(*) FROM boxes) AS boxes, (SELECT count(*) FROM negatives) AS negatives"""
_KINDS = """
    SELECT kind, count(*) AS concepts, count(DISTINCT lemma) AS lemmas, count(*) FILTER (denied) AS denied
    FROM concepts WHERE part = 0 GROUP BY kind ORDER BY kind"""
_FAILED = """
    SELECT status, count(*) AS samples FROM samples WHERE status <> 'ok'
    GROUP BY status ORDER BY samples DESC, status"""
_FAILURES = f"""
    SELECT status, sample_id, caption, error FROM samples WHERE status <> 'ok'
    QUALIFY row_number() OVER (PARTITION BY status ORDER BY sample_id) <= {EXAMPLES} ORDER BY status, sample_id"""
_LEMMAS = """
    SELECT kind, lemma, count(*) AS n FROM concepts WHERE part = 0 GROUP BY kind, lemma
    QUALIFY row_number() OVER (PARTITION BY kind ORDER BY count(*) DESC, lemma) <= {top} ORDER BY kind, n DESC, lemma"""
_TOGETHER = f"""
    WITH named AS (
        SELECT DISTINCT sample_id, lemma FROM concepts WHERE kind = 'object' AND lemma IN (
            SELECT lemma FROM concepts WHERE kind = 'object' AND part = 0
            GROUP BY lemma ORDER BY count(*) DESC, lemma LIMIT {TOGETHER}))
    SELECT a.lemma AS one, b.lemma AS other, count(*) AS captions
    FROM named a JOIN named b ON a.sample_id = b.sample_id AND a.lemma < b.lemma GROUP BY ALL ORDER BY ALL"""
_OWNED = """
    SELECT a.lemma AS attribute, o.lemma AS object, count(*) AS n
    FROM concepts a JOIN concepts o ON o.concept_id = a.owner_id AND o.part = 0
    WHERE a.kind = 'attribute' AND a.part = 0 GROUP BY ALL ORDER BY n DESC, attribute, object LIMIT {top}"""
_TRIPLETS = """
    SELECT s.lemma AS subject, r.lemma AS relation, o.lemma AS object, count(*) AS n FROM concepts r
    JOIN concepts s ON s.concept_id = r.subject_id AND s.part = 0
    JOIN concepts o ON o.concept_id = r.object_id AND o.part = 0
    WHERE r.kind = 'relation' AND r.part = 0 GROUP BY ALL ORDER BY n DESC, subject, relation, object LIMIT {top}"""
_SILENT = f"""
    WITH silent AS (SELECT sample_id, caption FROM samples ANTI JOIN concepts USING (sample_id) WHERE status = 'ok')
    SELECT (SELECT count(*) FROM silent) AS captions,
           (SELECT list({{'sample_id': sample_id, 'caption': caption}} ORDER BY sample_id)
            FROM (FROM silent ORDER BY sample_id LIMIT {EXAMPLES})) AS examples"""
_SCORES = (
    f"SELECT least(floor(score * {STEPS}), {STEPS - 1})::INT AS bin, count(*) AS boxes FROM boxes GROUP BY 1"
)
# Objects whose best box has so much, by threshold; of all that were asked for: what the caption denies was not.
_FOUND = f"""
    SELECT {", ".join(f"count(*) FILTER (best >= {step / STEPS}::FLOAT)" for step in range(STEPS + 1))}
    FROM (SELECT max(score) AS best FROM boxes GROUP BY concept_id)"""
_ASKED = "SELECT count(*) FROM concepts WHERE kind = 'object' AND part = 0 AND denied IS NOT TRUE"
# By the side of a square of the same area, in tenths of the image's; and where centres lie.
_SIZES = """
    SELECT least(floor(10 * sqrt(greatest(0, (x1 - x0) * (y1 - y0)))), 9)::INT AS bin, count(*)
    FROM boxes WHERE {best} GROUP BY 1"""
_PLACES = f"""
    SELECT greatest(0, least(floor({GRID} * (y0 + y1) / 2), {GRID - 1}))::INT AS row,
           greatest(0, least(floor({GRID} * (x0 + x1) / 2), {GRID - 1}))::INT AS col, count(*)
    FROM boxes WHERE {{best}} GROUP BY ALL"""
_SECONDS = """
    SELECT step.key AS step, sum(step.value) AS seconds,
           1000 * sum(step.value) / nullif(sum(samples), 0) AS ms_a_caption
    FROM (SELECT samples, unnest(map_entries(seconds)) AS step FROM shards)
    GROUP BY step.key ORDER BY seconds DESC, step"""


def report(store: Store, *, threshold: float, top: int = 20) -> dict[str, Any]:
    """Everything that the page shows, as JSON holds it. `threshold`: from which score a box counts."""
    with connect(store, views=(*TABLES, NEGATIVES, "shards")) as connection:

        def rows(sql: str) -> list[dict[str, Any]]:
            return dicts(connection.execute(sql.replace("{top}", str(top))))

        kinds, lemmas, failures = rows(_KINDS), rows(_LEMMAS), rows(_FAILURES)
        counted = rows(_COUNTS)[0] | {row["kind"]: row["concepts"] for row in kinds}
        return {
            "store": store.url,
            "schema_version": store.description()["schema_version"],
            "threshold": threshold,
            "detector": store.boxes_of or store.detector,
            "counts": counted,
            "concepts": kinds,
            "failed": [
                row
                | {"meaning": _meaning(row["status"])}
                | {"examples": [one for one in failures if one["status"] == row["status"]]}
                for row in rows(_FAILED)
            ],
            "without_concept": rows(_SILENT)[0],
            "commonest": {
                kind: [{"lemma": row["lemma"], "n": row["n"]} for row in lemmas if row["kind"] == kind]
                for kind in (OBJECT, ATTRIBUTE, RELATION)
            },
            "together": {
                "objects": rows(_TOGETHER),
                "attribute_of": rows(_OWNED),
                "triplets": rows(_TRIPLETS),
            },
            "boxes": _boxes(connection, threshold),
            "masking": masking(connection, threshold, GRID),
            "seconds": rows(_SECONDS),
            "settings": store.made_with,
        }


def _meaning(status: str) -> str:
    return {str(each): each.meaning for each in Status}.get(status, "")  # former versions had others


def _boxes(connection: duckdb.DuckDBPyConnection, threshold: float) -> dict[str, Any]:
    """Histograms of scores, sizes and places, and the share of objects with a box by threshold."""

    def bins(sql: str, *shape: int) -> list[Any]:
        counts = np.zeros(shape, np.int64)
        for *place, count in connection.execute(sql.replace("{best}", f"score >= {threshold!r}")).fetchall():
            counts[tuple(place)] = count
        listed: list[Any] = counts.tolist()
        return listed

    ((asked,),) = connection.execute(_ASKED).fetchall()
    (found,) = connection.execute(_FOUND).fetchall()
    return {
        "scores": {"bins": STEPS, "boxes": bins(_SCORES, STEPS)},
        "objects": asked,
        "grounded": [
            {"threshold": step / STEPS, "share": round(objects / max(asked, 1), 6)}
            for step, objects in enumerate(found)
        ],
        "sides": {"bins": 10, "boxes": bins(_SIZES, 10)},
        "centres": {"cells": GRID, "boxes": bins(_PLACES, GRID, GRID)},
    }
