"""What a parser is: captions in, concepts with exact spans out."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from macco.pipeline.schema import Concept
from macco.preprocess.graph.refusal import CaptionError

# Of what macco makes of a parse, or of a graph in words; 1 is 0.1.0's. To be raised whenever a caption's concepts
# change: it is in the fingerprint of every parser, so that a store takes no rows of another making.
READING: Final = 2


class Parsed(NamedTuple):
    """What became of some captions, in their order."""

    graphs: list[list[Concept] | CaptionError]
    counts: Mapping[str, int]  # what could not be read as it stands, by what it was


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
