"""A scene graph for people (`render`) and for programs (`to_json`)."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept

# kind -> (mark under its words, mark under its head, what the line is called)
MARKS = {
    OBJECT: ("-", "=", "objects"),
    ATTRIBUTE: ("^", "^", "attributes"),
    RELATION: ("~", "~", "relations"),
}


def render(caption: str, concepts: Sequence[Concept]) -> str:
    """The caption, a line of marks under its words per kind, then attributes and relations in words."""
    shown = "".join(c if c.isprintable() else " " for c in caption)
    ends = [0]
    for c in shown:
        ends.append(ends[-1] + cell_len(c))
    lines = [shown]
    for kind, (mark, head_mark, title) in MARKS.items():
        marks = [" "] * ends[-1]
        for concept in concepts:
            if concept.kind == kind:
                for span in concept.spans:
                    marks[ends[span.start] : ends[span.end]] = mark * (ends[span.end] - ends[span.start])
        for concept in concepts:
            if concept.kind == kind and mark != head_mark:
                start, end = ends[concept.head.start], ends[concept.head.end]
                marks[start:end] = head_mark * (end - start)
        if marks != [" "] * ends[-1]:
            lines.append("".join(marks) + "  " + title)

    def name(place: int | None) -> str:
        return "?" if place is None else concepts[place].lemma

    for owner, thing in enumerate(concepts):
        described = [words(caption, concept) for concept in concepts if concept.owner == owner]
        if thing.kind == OBJECT and described:
            lines.append(f"  {thing.lemma}: {', '.join(described)}")
    for concept in concepts:
        if concept.kind == RELATION:
            lines.append(f"  {name(concept.subject)} -[{words(caption, concept)}]-> {name(concept.object)}")
    if denied := [words(caption, concept) for concept in concepts if concept.denied]:
        lines.append(f"  denied: {', '.join(denied)}")
    if not concepts:
        lines.append("  no concepts")
    return "\n".join(lines) + "\n"


def words(caption: str, concept: Concept) -> str:
    """The concept's words, in order, with " ... " where its spans are apart."""
    return " ... ".join(" ".join(caption[span.start : span.end].split()) for span in concept.spans)


def to_json(caption: str, concepts: Sequence[Concept]) -> dict[str, Any]:
    """The caption and one entry per span; `id`, `subject`, `object`, `owner` count the concepts of the caption."""
    entries = [
        {
            "kind": concept.kind,
            "start": span.start,
            "end": span.end,
            "text": caption[span.start : span.end],
            "lemma": concept.lemma,
            "id": place,
            "part": part,
            "head": caption[concept.head.start : concept.head.end],
            "subject": concept.subject,
            "object": concept.object,
            "owner": concept.owner,
            "phrase": concept.phrase,
            "pos": concept.pos,
            "denied": concept.denied,
        }
        for place, concept in enumerate(concepts)
        for part, span in enumerate(concept.spans)
    ]
    return {"caption": caption, "concepts": entries}
