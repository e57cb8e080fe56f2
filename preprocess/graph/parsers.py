"""Which parsers there are.

A parser is named by a spec: an installed spaCy pipeline (`en_caption` ships with macco); `graphs:FILE`, scene graphs
made elsewhere; `factual:NAME_OR_DIR`, a T5 of FACTUAL's kind; or `NAME`, `NAME:ARGUMENT`, what another package adds by
an entry point in the group `macco.parsers`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from macco.preprocess.graph.parser import READING, Backend, Parsed, Parser
from macco.preprocess.plugins import PARSERS, having, made, plugins

if TYPE_CHECKING:
    from macco.preprocess.graph.scene_graphs import SceneGraphs


class SpacyBackend:
    """Pipelines of spaCy, with SceneGraphParser's rules."""

    def check(self, name: str) -> None:
        """See `Backend`."""
        from macco.preprocess.graph.language import check_pipeline

        check_pipeline(name)

    def fingerprint(self, name: str) -> str:
        """Name, version and content of a pipeline, and how it is read."""
        from macco.preprocess.graph.language import pipeline_fingerprint

        return f"{pipeline_fingerprint(name)}, reading {READING}"

    def load(self, name: str, rules: str) -> Parser:
        """Load a pipeline. Raises UserError where it does not give what the rules read."""
        from macco.preprocess.graph.scene_graphs import SceneGraphs

        return SpacyParser(SceneGraphs.load(name, rules))


class SpacyParser:
    """A `Parser` over `SceneGraphs`."""

    def __init__(self, graphs: "SceneGraphs") -> None:
        self._graphs = graphs

    def parse(self, captions: Sequence[str], names: Sequence[str] = ()) -> Parsed:
        """See `Parser`."""
        return Parsed(list(self._graphs.parse(captions)), {})


def backend(spec: str) -> tuple[Backend, str]:
    """The kind of parser that a spec names, and the rest of it. Raises UserError for a plug-in that does not load."""
    kind, colon, name = spec.partition(":")
    if colon and kind == "graphs":
        from macco.preprocess.graph.graph_file import GraphFileBackend

        return GraphFileBackend(), name
    if colon and kind == "factual":
        from macco.preprocess.graph.factual import FactualBackend

        return FactualBackend(), name
    added = plugins(PARSERS)
    if kind not in added:
        return SpacyBackend(), spec
    found: Backend = made(added[kind], "parser")
    return found, name


def check_parser(spec: str) -> None:
    """Raise UserError unless what `spec` names is here."""
    kind, name = backend(spec)
    kind.check(name)


def parser_fingerprint(spec: str) -> str:
    """What says that two parsers give the same graphs."""
    kind, name = backend(spec)
    return kind.fingerprint(name)


def load_parser(spec: str, rules: str = "repaired") -> Parser:
    """Load a parser. Raises UserError for one that is missing or unfit."""
    kind, name = backend(spec)
    found: Parser = having(kind.load(name, rules), ["parse"], f"parser {spec}, as it is loaded,")
    return found
