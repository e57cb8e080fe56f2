"""Captions with the graphs that are right, and how near others come."""

from collections import Counter
from collections.abc import Iterator, Sequence

from macco.pipeline.schema import ATTRIBUTE, OBJECT, Concept
from tests.support import DATA
from tests.support.parses import told

Fact = tuple[str, ...]
# What annotators write for one another.
SAME = {"of": "with", "have": "with"}


def kinds() -> list[tuple[str, list[str]]]:
    """The captions of graphs.txt, each with its concepts in lines, denied ones behind "~"."""
    blocks = DATA.joinpath("graphs.txt").read_text(encoding="utf-8").strip().split("\n\n")[1:]
    return [(caption, [line.strip() for line in lines]) for caption, *lines in map(str.splitlines, blocks)]


def told_with_denial(caption: str, concepts: Sequence[Concept]) -> list[str]:
    lines = told(caption, concepts)
    return ["~" * concept.denied + line for concept, line in zip(concepts, lines, strict=True)]


def gold() -> Iterator[tuple[str, Counter[Fact]]]:
    """The captions of gold_graphs.txt, each with its facts."""
    lines = DATA.joinpath("gold_graphs.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    for caption, graph in zip(lines[::2], lines[1::2], strict=True):
        objects, attributes, relations = (
            [part.strip() for part in parts.split(",") if part.strip()] for parts in graph.split("|")
        )
        facts: Counter[Fact] = Counter((lemma,) for lemma in objects)
        facts.update(tuple(part.strip() for part in each.split(":")) for each in attributes)
        for each in relations:
            subject, relation, object_ = (part.strip() for part in each.split(">"))
            facts[subject, SAME.get(relation, relation), object_] += 1
        yield caption, facts


def facts(concepts: Sequence[Concept]) -> Counter[Fact]:
    """A graph by lemma, without numerals."""
    found: Counter[Fact] = Counter()
    for concept in concepts:
        ends = [
            "?" if place is None else concepts[place].lemma
            for place in (concept.subject, concept.object, concept.owner)
        ]
        if concept.kind == OBJECT:
            found[(concept.lemma,)] += 1
        elif concept.kind == ATTRIBUTE:
            found[ends[2], concept.lemma] += concept.pos != "NUM"
        else:
            found[ends[0], SAME.get(concept.lemma, concept.lemma), ends[1]] += 1
    return found


def f1(pairs: Sequence[tuple[Counter[Fact], Counter[Fact]]]) -> float:
    """Of (found, gold) pairs, over all their facts."""
    hits = sum((found & right).total() for found, right in pairs)
    return 2 * hits / sum(found.total() + right.total() for found, right in pairs)
