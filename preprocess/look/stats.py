"""What a store holds: concepts and boxes, counted."""

from typing import Any

from macco.pipeline.query import connect, dicts
from macco.pipeline.store import Store

# Concepts are read once, for all that is asked of them.
_LEMMAS = """CREATE TEMP TABLE _lemmas AS
    SELECT kind, lemma, count(*) AS n FROM concepts WHERE part = 0 GROUP BY kind, lemma"""

_STATS = {
    "concepts": """
        SELECT kind, sum(n)::BIGINT AS concepts, count(*) AS lemmas,
               round(sum(n) / (SELECT count(*) FROM samples WHERE status = 'ok'), 2) AS per_caption
        FROM _lemmas GROUP BY kind ORDER BY kind""",
    # Boxes are of objects alone: what has none is counted, not joined. Groups are made by 64-bit hashes of the ids, in
    # two thirds of the time: of ten billion objects about three are taken for others, of these rounded figures nothing.
    "boxes": """
        WITH found AS MATERIALIZED (SELECT count(*) AS boxes, max(score) AS best FROM boxes GROUP BY hash(concept_id)),
             objects AS (SELECT coalesce(sum(n), 0)::BIGINT AS n FROM _lemmas WHERE kind = 'object'),
             every AS (SELECT boxes, best FROM found UNION ALL
                       SELECT 0, 0 FROM (SELECT unnest(range(n - (SELECT count(*) FROM found))) FROM objects))
        SELECT count(*) AS objects, round(avg(boxes), 2) AS boxes_per_object,
               round(avg((best >= {threshold})::INT), 4) AS share_grounded, round(median(best), 3) AS median_best_score
        FROM every""",
    "commonest": """
        SELECT kind, list(lemma || ' ' || n ORDER BY n DESC, lemma) AS lemmas
        FROM (SELECT * FROM _lemmas QUALIFY row_number() OVER (PARTITION BY kind ORDER BY n DESC, lemma) <= {top})
        GROUP BY kind ORDER BY kind""",
}


def stats(store: Store, *, threshold: float, top: int = 10) -> dict[str, list[dict[str, Any]]]:
    """Concepts by kind, how well objects are grounded at `threshold`, and the commonest lemmas."""
    connection = connect(store, views=("samples", "concepts", "boxes"))
    connection.execute(_LEMMAS)
    return {
        name: dicts(connection.execute(sql.format(threshold=threshold, top=top)))
        for name, sql in _STATS.items()
    }
