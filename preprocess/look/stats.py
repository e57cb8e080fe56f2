"""What a store holds: concepts and boxes, counted."""

from typing import Any

from macco.pipeline.query import connect, dicts
from macco.pipeline.store import Store

_STATS = {
    "concepts": """
        SELECT kind, count(*) AS concepts, count(DISTINCT lemma) AS lemmas,
               round(count(*) / (SELECT count(*) FROM samples WHERE status = 'ok'), 2) AS per_caption
        FROM concepts WHERE part = 0 GROUP BY kind ORDER BY kind""",
    "boxes": """
        SELECT count(*) AS objects, round(avg(boxes), 2) AS boxes_per_object,
               round(avg((best >= {threshold})::INT), 4) AS share_grounded, round(median(best), 3) AS median_best_score
        FROM (SELECT count(b.score) AS boxes, coalesce(max(b.score), 0) AS best
              FROM concepts c LEFT JOIN boxes b USING (concept_id)
              WHERE c.kind = 'object' AND c.part = 0 GROUP BY c.concept_id)""",
    "commonest": """
        SELECT kind, list(lemma || ' ' || n ORDER BY n DESC, lemma) AS lemmas
        FROM (SELECT kind, lemma, count(*) AS n FROM concepts WHERE part = 0 GROUP BY kind, lemma
              QUALIFY row_number() OVER (PARTITION BY kind ORDER BY count(*) DESC, lemma) <= {top})
        GROUP BY kind ORDER BY kind""",
}


def stats(store: Store, *, threshold: float, top: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Concepts by kind, how well objects are grounded at `threshold`, and the commonest lemmas."""
    connection = connect(store)
    return {
        name: dicts(connection.execute(sql.format(threshold=threshold, top=top)))
        for name, sql in _STATS.items()
    }
