"""Every status stands in pipeline/schema.py, and nowhere else under a name of its own."""

import ast
from pathlib import Path

import pytest

from macco.pipeline.schema import Status

ROOT = Path(__file__).parents[2]
CODE = sorted(file for room in ("pipeline", "preprocess", "train") for file in (ROOT / room).rglob("*.py"))
NAMES = {status.value for status in Status} - {"ok"}
FORMER = {"image_missing", "empty_caption"}  # second names of one fact, which are gone


def test_each_has_a_name_of_its_own_and_a_meaning() -> None:
    assert (
        len({status.meaning for status in Status}) == len(Status) == len({str(status) for status in Status})
    )
    assert all(status == status.value == status.name.lower() for status in Status)


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_code_takes_statuses_from_the_list(file: Path) -> None:
    tree = ast.parse(file.read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    if file != ROOT / "pipeline" / "schema.py":
        assert not words & (NAMES | FORMER)
    # A literal where a status is set would be one that the list lacks.
    keywords = [k for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords]
    assert not [k.value.value for k in keywords if k.arg == "status" and isinstance(k.value, ast.Constant)]
    assigned = [
        (target, value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for one in node.targets
        for target, value in (
            zip(one.elts, node.value.elts, strict=False)
            if isinstance(one, ast.Tuple) and isinstance(node.value, ast.Tuple)
            else [(one, node.value)]
        )
    ]
    named = [
        value for target, value in assigned if getattr(target, "attr", getattr(target, "id", "")) == "status"
    ]
    assert not [value.value for value in named if isinstance(value, ast.Constant) and value.value]
