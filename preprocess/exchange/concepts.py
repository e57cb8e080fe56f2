"""The concepts of a row of a MACCO TSV, which holds words without places: each is found again in the caption."""

import re
from collections.abc import Iterator
from typing import Any

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span


def concepts_of(row: dict[str, Any]) -> list[Concept]:
    """The concepts of a TSV row; words that the caption does not hold are left out.

    Each grounded phrase becomes an object that holds its boxes: a relation's subject and object, or an
    attribute's owner. The TSV does not say which box of a relation is whose.
    """
    caption: str = row["title"]
    folded = caption.lower() if caption.isascii() else None
    used: set[tuple[str, int]] = set()
    first: dict[str, Span | None] = {}  # place of each word of a phrase

    def place(kind: str, word: str) -> Span | None:
        for start, end in _anywhere(word, caption, folded):
            if (kind, start) not in used:
                used.add((kind, start))
                return Span(start, end)
        return None

    def within(word: str) -> Span | None:
        if word not in first:
            start = find(word, caption, 0)
            first[word] = None if start < 0 else Span(start, start + len(word))
        return first[word]

    concepts: list[Concept] = []
    for word in row["object_list"]:
        if span := place(OBJECT, word):
            concepts.append(Concept(OBJECT, (span,), word.lower(), span, "NOUN"))
    phrases: dict[str, int] = {}
    for phrase in dict.fromkeys(key for group in row["relation_attribute_phrase_bbox_list"] for key in group):
        found = [span for word in phrase.split() if (span := within(word))]
        if found:
            whole = Span(min(span.start for span in found), max(span.end for span in found))
            phrases[phrase] = len(concepts)
            concepts.append(Concept(OBJECT, (whole,), phrase.lower(), found[-1], "NOUN", phrase))
    taken: set[tuple[str, str]] = set()
    for kind, listed, column in (
        (ATTRIBUTE, row["attribute_list"], "attribute_phrase_list"),
        (RELATION, row["relation_list"], "relation_phrase_list"),
    ):
        for word in listed:
            if (span := place(kind, word)) is None:
                continue
            fitting = (p for p in row[column] if f" {word} " in f" {p} " and (word, p) not in taken)
            phrase = next(fitting, None)
            taken.add((word, phrase or ""))
            end = phrases.get(phrase) if phrase is not None else None
            if kind == ATTRIBUTE:
                concepts.append(Concept(kind, (span,), word.lower(), span, "ADJ", phrase, owner=end))
            else:
                concepts.append(Concept(kind, (span,), word.lower(), span, "VERB", subject=end, object=end))
    return concepts


def _anywhere(word: str, caption: str, folded: str | None) -> Iterator[tuple[int, int]]:
    """All places of a word, in either case; `folded` is the caption in lower case where it is all ASCII."""
    if folded is None or not word.isascii() or not word:
        # Beyond ASCII, letters of both cases may differ in length, and some have three forms.
        pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
        yield from (found.span() for found in re.finditer(pattern, caption, re.IGNORECASE))
        return
    word, end = word.lower(), 0
    while (start := find(word, folded, end)) >= 0:
        end = start + len(word)
        yield start, end


def find(word: str, text: str, start: int) -> int:
    r"""Where, from `start` on, a word stands by itself: what `(?<!\w)word(?!\w)` finds, in less time; -1: nowhere."""
    size, last = len(word), len(text)
    while (start := text.find(word, start)) >= 0:
        end = start + size
        if (not start or _apart(text[start - 1])) and (end == last or _apart(text[end])):
            return start
        start += 1
    return -1


def _apart(character: str) -> bool:
    return not character.isalnum() and character != "_"
