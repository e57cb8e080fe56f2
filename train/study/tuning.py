"""Hyper-parameters of a family of arms, chosen by figures of the validation benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from macco.pipeline.errors import UserError
from macco.train.study.plan import Figures, Tuning
from macco.train.study.record import Record


@dataclass(frozen=True)
class Candidate:
    """One point of the grid: `below` is by how many points it breaks the limits, None where it has no figures."""

    values: dict[str, Any]
    score: float | None
    below: float | None
    figures: dict[str, float | None]  # by the title of the measure


def judge(tuning: Tuning, values: dict[str, Any], record: Record | None, start: Figures) -> Candidate:
    """Compare a candidate's figures with the start's; `record` is None where its run failed."""
    if record is None:
        return Candidate(values, None, None, {})
    measures = (*tuning.best, *tuning.limits)
    figures = {measure.title: measure.of(record.figures) for measure in measures}
    best = [figures[measure.title] for measure in tuning.best]
    below = 0.0
    for limit in tuning.limits:
        least, found = limit.of(start), figures[limit.title]
        if least is None or found is None:
            return Candidate(values, None, None, figures)
        below = max(below, least - limit.within - found)
    known = [value for value in best if value is not None]
    return Candidate(values, sum(known) / len(known) if len(known) == len(best) else None, below, figures)


def choose(family: str, candidates: Sequence[Candidate]) -> Candidate:
    """The best within the limits, the first of equals; where none is within, the one that breaks them least.

    Raises UserError where no candidate has figures.
    """
    judged = [one for one in candidates if one.score is not None and one.below is not None]
    if not judged:
        raise UserError(f"tuning {family}: no candidate could be trained and judged")
    return min(judged, key=lambda one: (one.below or 0.0, -(one.score or 0.0)))


def report(chosen: Mapping[str, Candidate], candidates: Mapping[str, Sequence[Candidate]]) -> dict[str, Any]:
    """All candidates of all families, as plain values."""
    return {
        family: {"chosen": best.values, "candidates": [asdict(one) for one in candidates[family]]}
        for family, best in chosen.items()
    }
