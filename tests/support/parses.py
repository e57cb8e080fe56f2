"""Captions with parses made by hand, so that tests of the rules do not depend on a parser."""

from collections.abc import Sequence
from typing import NamedTuple

import spacy
from spacy.tokens import Doc

from macco.pipeline.schema import ATTRIBUTE, OBJECT, Concept
from tests.support import DATA

VOCAB = spacy.blank("en").vocab


class Case(NamedTuple):
    caption: str
    parse: str
    found: list[str]


def cases() -> list[Case]:
    blocks = DATA.joinpath("parses.txt").read_text().split("\n\n")[1:]
    return [
        Case(lines[0], lines[1], [line.strip() for line in lines[2:]])
        for lines in (block.strip().split("\n") for block in blocks)
    ]


def doc(caption: str, parse: str) -> Doc:
    """A Doc of the caption: `parse` gives form|part of speech|label|head(|lemma) per word."""
    rows = [word.split("|") for word in parse.split()]
    spaces, end = [], 0
    for row in rows:
        end = caption.index(row[0], end) + len(row[0])
        spaces.append(caption[end : end + 1] == " ")
    return Doc(
        VOCAB,
        words=[row[0] for row in rows],
        spaces=spaces,
        pos=[row[1] for row in rows],
        deps=[row[2] for row in rows],
        heads=[int(row[3]) for row in rows],
        lemmas=[row[4] if len(row) > 4 else row[0].lower() for row in rows],
    )


def words(caption: str, concept: Concept) -> str:
    return " ... ".join(caption[span.start : span.end] for span in concept.spans)


def told(caption: str, concepts: Sequence[Concept]) -> list[str]:
    """Each concept in one line, as the cases write them."""

    def name(place: int | None) -> str:
        return "?" if place is None else concepts[place].lemma

    lines = []
    for concept in concepts:
        text = words(caption, concept)
        if concept.kind == OBJECT:
            lines.append(text)
        elif concept.kind == ATTRIBUTE:
            lines.append(f"{name(concept.owner)}: {text}")
        else:
            lines.append(f"{name(concept.subject)} -[{text}]-> {name(concept.object)}")
    return lines
