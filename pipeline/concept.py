"""One concept of one caption, before it has a store to live in."""

from typing import NamedTuple


class Span(NamedTuple):
    """Characters [start, end) of a caption, in code points."""

    start: int
    end: int


class Concept(NamedTuple):
    """An object, attribute or relation of a caption.

    `subject`, `object` and `owner` are places in the list of the caption's concepts. `spans` are in
    reading order and never overlap; the columns of `pipeline.schema.CONCEPTS` say what the rest means.
    """

    kind: str
    spans: tuple[Span, ...]
    lemma: str
    head: Span
    pos: str
    phrase: str | None = None
    subject: int | None = None
    object: int | None = None
    owner: int | None = None
    denied: bool = False  # the caption says that it is not there, or not so
