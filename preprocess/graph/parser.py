"""What a parser is: captions in, concepts with exact spans out."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Status
from macco.preprocess.graph.refusal import CaptionError

# Of what macco makes of a parse, or of a graph in words; 1 is 0.1.0's. To be raised whenever a caption's concepts
# change: it is in the fingerprint of every parser, so that a store takes no rows of another making.
READING: Final = 3
_KINDS: Final = (OBJECT, ATTRIBUTE, RELATION)


class Parsed(NamedTuple):
    """What became of some captions, in their order."""

    graphs: list[list[Concept] | CaptionError]
    counts: Mapping[str, int]  # what could not be read as it stands, by what it was


def held(captions: Sequence[str], parsed: Parsed) -> Parsed:
    """The same, but of a graph that its caption does not bear out a CaptionError: whoever wrote the parser, what
    becomes rows has been held against the caption. Raises ValueError for another number of graphs than of captions.
    """
    if len(parsed.graphs) != len(captions):
        raise ValueError(f"the parser gave {len(parsed.graphs)} graphs for {len(captions)} captions")
    return parsed._replace(graphs=[_held(*one) for one in zip(captions, parsed.graphs, strict=True)])


def _held(caption: str, graph: list[Concept] | CaptionError) -> list[Concept] | CaptionError:
    if isinstance(graph, CaptionError):
        return graph
    try:
        wrong = fault(caption, graph)
    except (TypeError, ValueError, AttributeError) as error:
        wrong = f"what is no list of concepts: {error}"
    return graph if wrong is None else CaptionError(Status.PARSING_FAILED, f"the parser gave {wrong}")


def fault(caption: str, graph: Sequence[Concept]) -> str | None:
    """What is wrong with the concepts of a caption; None if they can be rows."""
    objects = {place for place, concept in enumerate(graph) if concept.kind == OBJECT}
    for kind, spans, lemma, head, pos, phrase, *ends, denied in graph:
        if kind not in _KINDS:
            return f"a concept of the kind {kind!r}: there are {', '.join(_KINDS)}"
        after = 0
        for start, end in spans:
            if not after <= start < end <= len(caption):
                return f"characters {start}:{end}, out of order or none of the caption's {len(caption)}"
            after = end
        if not after or not 0 <= head[0] < head[1] <= len(caption):
            return f"a concept without characters of its own, or of its head: {lemma!r}"
        if not all(
            isinstance(text, str) and (text.isascii() or _sound(text)) for text in (lemma, pos, phrase or "")
        ):
            return f"a lemma, part of speech or phrase that is no text: {(lemma, pos, phrase)!r}"
        if any(end is not None and end not in objects for end in ends) or not isinstance(denied, bool):
            return f"{lemma!r} of a subject, object or owner that is no object: {ends}"
    return None


def _sound(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


class Parser(Protocol):
    """A loaded parser."""

    def parse(self, captions: Sequence[str], names: Sequence[str]) -> Parsed:
        """The concepts of each caption, whose sample is called names[i]."""


class Backend(Protocol):
    """Parsers of one kind. `name` is what follows the colon, `rules` an option of spaCy's alone."""

    def check(self, name: str) -> None:
        """Raise UserError unless what `name` names is here. Loads no model."""

    def fingerprint(self, name: str) -> str:
        """What says that two parsers give the same graphs."""

    def load(self, name: str, rules: str) -> Parser:
        """Load a parser."""
