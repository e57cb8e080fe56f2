"""What nothing changes is made once in each process of tests: models that ship with macco, words, commands."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
import typer.testing
from open_clip.tokenizer import SimpleTokenizer

# Every invocation of a command builds all commands anew, which takes longer than most commands do.
typer.testing._get_command = functools.cache(typer.main.get_command)  # type: ignore[attr-defined]


read_words = SimpleTokenizer.__init__


@functools.cache
def words(*given: Any, **named: Any) -> dict[str, Any]:
    made = object.__new__(SimpleTokenizer)
    read_words(made, *given, **named)
    return vars(made)


SimpleTokenizer.__init__ = lambda self, *given, **named: vars(self).update(words(*given, **named))


@pytest.fixture(scope="session", autouse=True)
def loaded_once() -> Iterator[None]:
    from macco.preprocess.detectors.networks import NetworkBackend
    from macco.preprocess.graph.language import EMBEDDED
    from macco.preprocess.graph.scene_graphs import SceneGraphs

    load_network, load_graphs = NetworkBackend.load, SceneGraphs.load

    @functools.cache
    def tiny(device: str, settings: Any) -> Any:
        return load_network(NetworkBackend("tiny"), "", device, settings)

    @functools.cache
    def graphs(rules: str) -> Any:
        return load_graphs(EMBEDDED, rules)

    def network(backend: NetworkBackend, name: str, *given: Any) -> Any:
        return tiny(*given) if backend.kind == "tiny" else load_network(backend, name, *given)

    def parser(name: str, rules: str) -> Any:
        return graphs(rules) if name == EMBEDDED else load_graphs(name, rules)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkBackend, "load", network)
        patch.setattr(SceneGraphs, "load", parser)
        yield
