"""Graphs of words alone to concepts: objects, attributes and relations are found in their caption."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from nltk.stem.porter import PorterStemmer

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span

AMBIGUOUS: Final = "words of graphs that stand in their caption more than once: the first free place is taken"
ABSENT: Final = "words of graphs that their caption does not have: left out"
SHARED: Final = (
    "words of graphs that stand in their caption less often than they are named: they share a place"
)

_WORD: Final = re.compile(r"\w+(?:[-'’]\w+)*")
_COUNTED: Final = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS: Final = _COUNTED.split()
_PREPOSITIONS: Final = """
    on in at of with by near behind under above below beside between over against inside outside across along around
    through to from into onto off up down for
"""
_PLACES: Final = frozenset(_PREPOSITIONS.split())
_stemmer = PorterStemmer()


@dataclass
class Thing:
    """An object of a graph. `span` is given where it is known."""

    text: str
    span: Span | None = None
    attributes: list[tuple[str, Span | None]] = field(default_factory=list)


@dataclass
class Graph:
    """A caption's graph in words; relations are (subject, words, object), by places in `objects`."""

    objects: list[Thing] = field(default_factory=list)
    relations: list[tuple[int | None, str, int | None, Span | None]] = field(default_factory=list)

    def other(self, place: int) -> int:
        """The place of another object of the same words; one that is not listed is put there."""
        text = self.objects[place].text
        for number, thing in enumerate(self.objects):
            if number != place and thing.text == text:
                return number
        self.objects.append(Thing(text))
        return len(self.objects) - 1


def concepts_of(graph: Graph, caption: str, counts: Counter[str]) -> list[Concept]:
    """The concepts of a graph whose words the caption has, in the order of objects, attributes, relations.

    Words are found as they are written, else by their stems ("holding" for hold, "two" for 2).
    """
    words = _Words(caption, counts)
    for thing in graph.objects:
        words.take(thing.span)
    objects: list[Concept] = []
    attributes: list[Concept] = []
    place: dict[int, int] = {}
    for number, thing in enumerate(graph.objects):
        span = words.find(thing.text, thing.span)
        if span is None:
            continue
        place[number] = len(objects)
        described = [(text, words.find(text, known, owner=span)) for text, known in thing.attributes]
        adjectives = [_plain(text) for text, _ in described]
        phrase = " ".join([*(word for word in adjectives if word not in _NUMERALS), words.said(span)])
        head = words.last(span)
        objects.append(Concept(OBJECT, (span,), _plain(thing.text), head, "NOUN", phrase))
        attributes += [
            Concept(ATTRIBUTE, (at,), _plain(text), at, "ADJ", phrase, owner=place[number])
            for text, at in described
            if at is not None
        ]
    relations = list(_relations(graph, words, place))
    return objects + sorted(attributes, key=lambda one: one.head.start) + relations


def _relations(graph: Graph, words: "_Words", place: dict[int, int]) -> Iterator[Concept]:
    for subject, text, object_, known in graph.relations:
        begins, ends = (None if end is None else place.get(end) for end in (subject, object_))
        span = words.find(text, known, shared=True)
        if span is not None and (begins, ends) != (None, None):
            head = words.first(span)
            pos = "ADP" if words.said(head).lower() in _PLACES else "VERB"
            yield Concept(RELATION, (span,), _plain(text), head, pos, None, begins, ends)


class _Words:
    """The words of a caption, and which of them are taken."""

    def __init__(self, caption: str, counts: Counter[str]) -> None:
        self.caption = caption
        self.counts = counts
        self.spans = [Span(*found.span()) for found in _WORD.finditer(caption)]
        self.forms = [_form(caption[span.start : span.end]) for span in self.spans]
        self.taken: set[int] = set()

    def take(self, span: Span | None) -> None:
        """Nothing else is to be found where this stands."""
        if span is not None:
            self.taken |= self._within(span)

    def find(
        self, text: str, known: Span | None, *, owner: Span | None = None, shared: bool = False
    ) -> Span | None:
        """Where words stand: as given, else as found. owner: of an attribute; of several places that nearest to it is
        taken, its own words too. shared: relations of several objects have one place."""
        if known is not None:
            self.take(None if shared else known)
            return known
        wanted = [_form(word) for word in _WORD.findall(text)]
        places = self._places(wanted, exact=True) or self._places(wanted, exact=False)
        if not places:
            self.counts[ABSENT] += 1
            return None
        taken = self.taken if owner is None else self.taken - self._within(owner)
        free = [first for first in places if not taken & {*range(first, first + len(wanted))}]
        if not free and not shared:
            self.counts[SHARED] += 1
        elif len(free or places) > 1 and owner is None:
            self.counts[AMBIGUOUS] += 1
        free = free or places
        first = free[0]
        if owner is not None:
            first = min(free, key=lambda one: abs(self.spans[one].start - owner.start))
        found = Span(self.spans[first].start, self.spans[first + len(wanted) - 1].end)
        self.take(None if shared else found)
        return found

    def _within(self, span: Span) -> set[int]:
        """The words that a span touches, by their numbers."""
        return {
            number for number, one in enumerate(self.spans) if one.start < span.end and span.start < one.end
        }

    def _places(self, wanted: Sequence[str], *, exact: bool) -> list[int]:
        if not wanted:
            return []
        forms = self.forms if exact else [_stem(form) for form in self.forms]
        asked = list(wanted) if exact else [_stem(form) for form in wanted]
        return [
            first
            for first in range(len(forms) - len(asked) + 1)
            if forms[first : first + len(asked)] == asked
        ]

    def said(self, span: Span) -> str:
        return _plain(self.caption[span.start : span.end])

    def last(self, span: Span) -> Span:
        inside = [one for one in self.spans if span.start <= one.start and one.end <= span.end]
        return inside[-1] if inside else span

    def first(self, span: Span) -> Span:
        inside = [one for one in self.spans if span.start <= one.start and one.end <= span.end]
        return inside[0] if inside else span


_NUMERALS: Final = frozenset([*map(str, range(len(_NUMBERS))), *_NUMBERS])


def _form(word: str) -> str:
    word = word.lower()
    return _NUMBERS[int(word)] if word.isascii() and word.isdigit() and int(word) < len(_NUMBERS) else word


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return str(_stemmer.stem(word))
