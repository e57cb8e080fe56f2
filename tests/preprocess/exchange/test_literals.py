"""Cells of Python literals: the quick reading is Python's own, and what is no such list is a row's problem."""

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.preprocess.exchange.literals import literal, phrase_boxes, words

PIECES = [
    "[", "]", "{", "}", "(", ")", "'", '"', ",", ":", " ", "\\", "\t", "\n", "a", "é", "true", "null", "None", "NaN",
    "1", "0", ".", "-", "e",
]  # fmt: skip


def outcome(read: Any, text: str) -> Any:
    try:
        return repr(read(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return "refused"


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_is_read_as_python_reads_it(text: str) -> None:
    assert outcome(literal, text) == outcome(ast.literal_eval, text)


values = st.recursive(
    st.text(max_size=8)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_python_writes_is_read_again(value: Any) -> None:
    assert literal(repr(value)) == value
    assert repr(literal(repr(value))) == repr(ast.literal_eval(repr(value)))


def test_a_bomb_of_brackets_is_refused_and_code_is_never_run() -> None:
    assert outcome(literal, "[" * 100_000) == "refused"
    assert outcome(literal, "__import__('os').getcwd()") == "refused"


@pytest.mark.parametrize("text", ["5", "'abc'", "[1]", "[None]", "[['a']]", "{}", "('a',)"])
def test_no_list_of_words(text: str) -> None:
    with pytest.raises(ValueError, match="no list of strings"):
        words(text)


@pytest.mark.parametrize(
    "text",
    ["5", "[5]", "[['a']]", "[{1: []}]", "[{'a': 5}]", "[{'a': [[1, 2, 3]]}]", "[{'a': [1, 2, 3, 4]}]",
     "[{'a': [['1', 2, 3, 4]]}]", f"[{{'a': [[1{'0' * 400}, 2, 3, 4]]}}]", r"[{'\udc80': []}]",
     "[{'a': [[1, 2, 3, 1e999]]}]", "[{'a': [[True, 2, 3, 4]]}]"],
)  # fmt: skip
def test_no_phrases_with_boxes(text: str) -> None:
    with pytest.raises(ValueError, match="no list of phrases"):
        phrase_boxes(text)


def test_phrases_with_boxes() -> None:
    assert phrase_boxes("[{'red dog': [[0.5, 1, 2, 3.25]], 'no box': []}]") == [
        {"red dog": [[0.5, 1, 2, 3.25]], "no box": []}
    ]
    assert words("""['it', "dog's", 'a"b']""") == ["it", "dog's", 'a"b']
