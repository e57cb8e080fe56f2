"""The house: which rooms may know of which, read from the import statements."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from macco.train.config import OBJECTIVES
from tests.support import ROOT

STAGES = ("pipeline", "preprocess", "train")
Arrows = set[tuple[str, str]]


def modules(stage: str) -> dict[str, Path]:
    """Every module of a stage by its dotted name."""
    found = {}
    for path in sorted((ROOT / stage).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("macco", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of macco that a file names, wherever in it the statement stands."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    # `from macco.train import layers` names the module layers, not only its package.
    deepest = {name for name in named if name in known}
    return {name for name in deepest if not any(other.startswith(f"{name}.") for other in deepest)}


ALL = {name: path for stage in STAGES for name, path in modules(stage).items()}


@cache
def arrows() -> Arrows:
    """Which module names which; only who asks waits for it, and not every process of tests."""
    return {(name, other) for name, path in ALL.items() for other in imports(path, ALL) if other != name}


def rooms(stage: str) -> Arrows:
    """Arrows between the folders and files that lie directly in a stage's folder."""
    place = {name: name.split(".")[2] for name in ALL if name.startswith(f"macco.{stage}.")}
    found = {(place[a], place[b]) for a, b in arrows() if a in place and b in place}
    return {(a, b) for a, b in found if a != b}


def circle(arrows: Arrows) -> list[str]:
    """One circle of a graph, if there is any."""
    after, state, path = defaultdict(set), dict[str, int](), list[str]()
    for a, b in arrows:
        after[a].add(b)

    def visit(node: str) -> bool:
        state[node] = 1
        path.append(node)
        for other in sorted(after[node]):
            if state.get(other) == 1 or (other not in state and visit(other)):
                if state.get(other) == 1 and path[-1] != other:
                    path.append(other)
                return True
        state[node] = 2
        path.pop()
        return False

    return next((path for node in sorted(after) if node not in state and visit(node)), [])


def test_the_stages_meet_in_the_pipeline_alone() -> None:
    across = {(a.split(".")[1], b.split(".")[1]) for a, b in arrows()}
    assert {(a, b) for a, b in across if a != b} == {("preprocess", "pipeline"), ("train", "pipeline")}


@pytest.mark.parametrize("stage", STAGES)
def test_no_room_needs_a_room_that_needs_it(stage: str) -> None:
    assert not circle(rooms(stage))


def test_no_module_needs_a_module_that_needs_it() -> None:
    assert not circle({(a, b) for a, b in arrows() if not a.startswith(f"{b}.")})


def test_the_rooms_of_training_are_loosely_tied() -> None:
    assert len(rooms("train")) < 60


def test_no_file_is_long() -> None:
    assert [str(path) for path in ALL.values() if len(path.read_text().splitlines()) > 350] == []


def test_objectives_are_named_in_one_table_and_asked_for_by_their_interface() -> None:
    """Outside its folder nothing imports an objective, and nothing asks which one it is."""
    folders = tuple(f"macco.train.objectives.{folder}" for folder in set(OBJECTIVES.values()))
    outside = {(a, b) for a, b in arrows() if b.startswith(folders) and not a.startswith(folders)}
    assert not outside
    for name, path in ALL.items():
        if not name.startswith(folders):
            assert "objective ==" not in path.read_text(), path
            assert "objective !=" not in path.read_text(), path
