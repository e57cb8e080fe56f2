"""What the page is asked to show, as its address says it, and the same as a condition for --where."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Final

from macco.pipeline.errors import UserError
from macco.pipeline.page.index import KINDS, SPLITS, STATUSES
from macco.pipeline.readonly import conjuncts
from macco.pipeline.views import quote

SORTS: Final = ("store", "score", "captions", "random")
LEVELS: Final = 101  # thresholds 0.00, 0.01, ... 1.00
FACETS: Final = ("kind", "concept", "status", "dataset", "shard", "split", "tag")


@dataclass(frozen=True)
class Filter:
    """Values of one facet are alternatives, facets are conditions that hold together. Empty: no condition.

    Kinds, lemmas and the score are about one concept: one of these kinds and lemmas with a box of such a score.
    """

    kind: tuple[str, ...] = ()
    concept: tuple[str, ...] = ()  # kind:lemma
    status: tuple[str, ...] = ()
    dataset: tuple[str, ...] = ()
    shard: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    score: int | None = None  # hundredths; only images with such a box
    where: str = ""
    sort: str = "store"
    seed: int = 0

    @classmethod
    def of(cls, given: Iterable[tuple[str, str]], beside: Sequence[str] = ()) -> "Filter":
        """From an address's pairs; raises UserError for names and values that mean nothing. `beside`: other names."""
        found: dict[str, list[str]] = {}
        for name, value in given:
            found.setdefault(name, []).append(value)
        names = [field.name for field in fields(cls)]
        for name in found:
            if name not in (*names, *beside):
                near = get_close_matches(name, names, n=1) or [", ".join(names)]
                raise UserError(
                    f"the address has {name!r}, which means nothing here: did you mean {near[0]}?"
                )
        facets = {name: tuple(dict.fromkeys(found.get(name, ()))) for name in FACETS}
        for name, known in (("kind", KINDS), ("status", STATUSES), ("split", SPLITS)):
            if wrong := set(facets[name]) - {str(one) for one in known}:
                raise UserError(f"{name} is {min(wrong)!r}: choose of {', '.join(known)}")
        for one in facets["concept"]:
            if one.partition(":")[0] not in KINDS:
                raise UserError(f"concept is {one!r}: kind:lemma, for example object:dog")
        last = {name: values[-1] for name, values in found.items()}
        if (sort := last.get("sort", "store")) not in SORTS:
            raise UserError(f"sort is {sort!r}: choose one of {', '.join(SORTS)}")
        try:
            score = round(100 * float(last["score"])) if last.get("score") else None
            seed = int(last.get("seed", 0))
        except (ValueError, OverflowError) as error:
            raise UserError(f"score and seed are numbers: {error}") from error
        if score is not None and not 0 <= score < LEVELS:
            raise UserError(f"score is {last['score']}: it lies between 0 and 1")
        return cls(**facets, score=score, where=last.get("where", ""), sort=sort, seed=abs(seed))

    def sql(self, rows: str = "") -> str:
        """The same as a condition for --where; empty where all is shown.

        One concept (its kind, lemma and score), a status, a tag and `where` may each be met by another caption of an
        image: beside the first of them the others are conditions on its image. rows: those that meet `where`, as
        `condition.rows` finds them.
        """
        parts = [" AND ".join(concept)] if (concept := self._concept()) else []
        apart = [(sql, f"samples WHERE {sql}") for sql in self._sample()]
        if self.where.strip():
            # As DuckDB writes it: in one line, without comments.
            apart.insert(0, (" AND ".join(f"({sql})" for sql in conjuncts(self.where)), rows))
        for own, of in apart:
            parts.append(f"(shard, key) IN (SELECT (shard, key) FROM {of})" if parts else own)
        parts += [_among(name, getattr(self, name)) for name in ("dataset", "shard") if getattr(self, name)]
        if self.split:
            parts.append(_any(f"key LIKE {quote(f'{split}/%')}" for split in self.split))
        return " AND ".join(parts)

    def _concept(self) -> list[str]:
        """Conditions on one concept."""
        parts = [_among("kind", self.kind)] if self.kind else []
        if self.concept:
            pairs = [one.split(":", 1) for one in self.concept]
            by_kind = {kind: [lemma for k, lemma in pairs if k == kind] for kind, _ in pairs}
            parts.append(
                _any(f"kind = {quote(kind)} AND {_among('lemma', some)}" for kind, some in by_kind.items())
            )
        if self.score is not None:
            parts.append(f"score >= {self.score / 100}")
        return parts

    def _sample(self) -> list[str]:
        """Conditions, each on a caption."""
        parts = [_among("status", self.status)] if self.status else []
        if self.tag:
            parts.append(f"sample_id IN (SELECT sample_id FROM tags WHERE {_among('tag', self.tag)})")
        return parts


def _any(parts: Iterable[str]) -> str:
    first, *more = parts
    return "(" + " OR ".join(f"({one})" for one in (first, *more)) + ")" if more else first


def _among(name: str, values: Sequence[str]) -> str:
    if len(values) == 1:
        return f"{name} = {quote(values[0])}"
    return f"{name} IN ({', '.join(map(quote, values))})"
