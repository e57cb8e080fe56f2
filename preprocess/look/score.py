"""An extraction against known truth: concept spans, and boxes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.urls import plain
from macco.pipeline.views import scan_all
from macco.preprocess.config import DEFAULT_THRESHOLD

# Not sample_id: the corpus may go by another name here and there.
_SAMPLE = "concat_ws('/', c.shard, c.key, c.caption_id)"
_BOXES = """
    SELECT {sample}, c.start, c."end", b.x0, b.y0, b.x1, b.y1, b.score
    FROM {concepts} c JOIN {boxes} b USING (concept_id)
    WHERE c.kind = 'object' AND c.part = 0 AND b.score >= {threshold}
    ORDER BY b.score DESC, b.x0, b.y0
"""


@dataclass(frozen=True)
class Agreement:
    """How many of the predicted and of the true things agree."""

    hits: int
    predicted: int
    true: int

    @property
    def precision(self) -> float:
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.hits / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.hits / (self.predicted + self.true) if self.predicted + self.true else 0.0


def score(
    store: Store, truth: str, threshold: float = DEFAULT_THRESHOLD, iou: float = 0.5
) -> dict[str, Agreement]:
    """Compare a store with `truth/concepts` and `truth/boxes` (the store's own schemas).

    Spans agree if (sample, kind, start, end) do. A box agrees if it meets a true box of an object with the
    same span with at least `iou`; each true box is met once, best scores first. Returns an Agreement for
    "spans", for the spans of each kind, and for "boxes".
    """
    connection = connect(store, views=("samples", "concepts", "boxes"))
    for name in ("concepts", "boxes"):
        try:
            connection.execute(
                f"CREATE TEMP VIEW true_{name} AS SELECT * FROM {scan_all(plain(truth), name)}"
            )
        except Exception as error:
            raise UserError(
                f"no truth at {truth}/{name} ({str(error).splitlines()[0]}); the demo corpus has it in DIR/truth"
            ) from error
    query = f"""
        WITH p AS (SELECT DISTINCT {_SAMPLE} AS sample, kind, start, "end" FROM concepts c),
             t AS (SELECT DISTINCT {_SAMPLE} AS sample, kind, start, "end" FROM true_concepts c)
        SELECT kind, count(p.sample) FILTER (t.sample IS NOT NULL), count(p.sample), count(t.sample)
        FROM p FULL JOIN t USING (sample, kind, start, "end") GROUP BY kind ORDER BY kind
    """
    rows = connection.execute(query).fetchall()
    result = {"spans": Agreement(*(sum(row[i] for row in rows) for i in (1, 2, 3)))}
    result.update({kind: Agreement(*counts) for kind, *counts in rows})
    predicted = connection.execute(
        _BOXES.format(sample=_SAMPLE, concepts="concepts", boxes="boxes", threshold=threshold)
    ).fetchall()
    true = connection.execute(
        _BOXES.format(sample=_SAMPLE, concepts="true_concepts", boxes="true_boxes", threshold=0)
    ).fetchall()
    result["boxes"] = match_boxes(predicted, true, iou)
    return result


def match_boxes(
    predicted: Iterable[tuple[Any, ...]], true: Iterable[tuple[Any, ...]], least: float
) -> Agreement:
    """Match boxes greedily: rows of (three keys, x0, y0, x1, y1, score), predicted ones best first."""
    open_boxes: dict[tuple[Any, ...], list[tuple[float, ...]]] = defaultdict(list)
    count = 0
    for sample, start, end, *box, _ in true:
        open_boxes[sample, start, end].append(tuple(box))
        count += 1
    hits = total = 0
    for sample, start, end, *box, _ in predicted:
        total += 1
        candidates = open_boxes[sample, start, end]
        best = max(range(len(candidates)), key=lambda i: _iou(box, candidates[i]), default=None)
        if best is not None and _iou(box, candidates[best]) >= least:
            candidates.pop(best)
            hits += 1
    return Agreement(hits, total, count)


def _iou(a: Iterable[float], b: Iterable[float]) -> float:
    ax0, ay0, ax1, ay1 = a
    bx0, by0, bx1, by1 = b
    common = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - common
    return common / union if union > 0 else 0.0
