"""Python literals in the cells of a table, read and checked, never evaluated."""

import ast
import json
from math import isfinite
from typing import Any

# What JSON knows and Python's literals do not, or the other way round; cells with these take the long way.
_OWN_WORDS = ("true", "false", "null", "NaN", "Infinity")


def literal(text: str) -> Any:
    """What `ast.literal_eval` makes of a cell, ten times as fast for lists of plain strings and numbers.

    Raises ValueError, or another error of `ast.literal_eval`, where it does.
    """
    if '"' not in text and "\\" not in text and not any(word in text for word in _OWN_WORDS):
        try:
            return json.loads(text.replace("'", '"'))
        except ValueError:
            pass  # no list of such, or none at all: Python's own reader says
    return ast.literal_eval(text)


def words(text: str) -> list[str]:
    """A list of strings. Raises as `literal` does."""
    found = literal(text)
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ValueError(f"no list of strings: {text[:80]}")
    return found


def phrase_boxes(text: str) -> list[dict[str, list[list[float]]]]:
    """A list of mappings of phrases to boxes of four numbers. Raises as `literal` does."""
    found = literal(text)
    good = isinstance(found, list) and all(isinstance(group, dict) for group in found)
    if not good or not all(_boxes(*pair) for group in found for pair in group.items()):
        raise ValueError(f"no list of phrases with their boxes: {text[:80]}")
    boxes: list[dict[str, list[list[float]]]] = found
    return boxes


def _boxes(phrase: object, boxes: object) -> bool:
    return (
        isinstance(phrase, str)
        and isinstance(boxes, list | tuple)
        and all(isinstance(box, list | tuple) and len(box) == 4 and all(map(_number, box)) for box in boxes)
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
