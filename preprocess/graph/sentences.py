"""Captions of several sentences: each is parsed by itself, and what it says is put together. Nothing is carried from
one to the next: who "he" is stays open."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span

# What ends a sentence: a mark with what closes around it, then blanks and a capital; or a mark between blanks, as in
# captions that were taken apart into words.
_END: Final = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])|(?<=\s[.!?])\s+(?=\S)")
_ABBREVIATIONS: Final = """
    st mr mrs ms dr jr sr prof rev gen col sgt lt capt gov sen rep vs no nr vol fig ca approx inc ltd co corp dept ave
    blvd rd mt ft jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun a.m p.m e.g i.e etc u.s
    u.k
"""
_SHORT: Final = frozenset(_ABBREVIATIONS.split())
_LAST: Final = re.compile(r"([\w.]*\w)\.$")


def sentences(caption: str) -> list[tuple[int, str]]:
    """The sentences of a caption, each with where it begins; a caption of one is as it was."""
    found, start = list[tuple[int, str]](), 0
    for end in _END.finditer(caption):
        text = caption[start : end.start()]
        if not re.search(r"\w", text) or _abbreviated(text):
            continue
        found.append((start, text + end[0].rstrip()))
        start = end.end()
    if found and not re.search(r"\w", caption[start:]):  # what follows is no sentence
        start = found.pop()[0]
    return [*found, (start, caption[start:])]


def _abbreviated(text: str) -> bool:
    """Whether a full stop at its end is that of a short word, or an initial."""
    last = _LAST.search(text)
    return last is not None and (len(last[1]) == 1 or last[1].lower() in _SHORT)


def joined(parts: Sequence[tuple[int, list[Concept]]]) -> list[Concept]:
    """The concepts of a caption's sentences: objects, attributes, relations, as those of one sentence are ordered."""
    if len(parts) == 1 and parts[0][0] == 0:
        return parts[0][1]
    flat = [
        (sentence, place, concept)
        for kind in (OBJECT, ATTRIBUTE, RELATION)
        for sentence, (_, concepts) in enumerate(parts)
        for place, concept in enumerate(concepts)
        if concept.kind == kind
    ]
    now = {(sentence, place): number for number, (sentence, place, _) in enumerate(flat)}
    return list(_moved(flat, now, [start for start, _ in parts]))


def _moved(
    flat: Sequence[tuple[int, int, Concept]], now: dict[tuple[int, int], int], starts: Sequence[int]
) -> Iterator[Concept]:
    for sentence, _, concept in flat:
        start = starts[sentence]
        subject, object_, owner = (
            None if end is None else now[sentence, end]
            for end in (concept.subject, concept.object, concept.owner)
        )
        spans = tuple(Span(span.start + start, span.end + start) for span in concept.spans)
        head = Span(concept.head.start + start, concept.head.end + start)
        yield concept._replace(spans=spans, head=head, subject=subject, object=object_, owner=owner)
