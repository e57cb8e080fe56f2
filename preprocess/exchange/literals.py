"""Python literals in the cells of a table, read and checked, never evaluated."""

import ast
import json
import re
from math import isfinite
from typing import Any

# What JSON knows and Python's literals do not, or the other way round; cells with these take the long way.
_OWN = ('"', "\\", "true", "false", "null", "NaN", "Infinity")
_JSON = json.JSONDecoder()
_HALF = re.compile("[\ud800-\udfff]")
_NUMBERS = {int, float}  # and not bool


def literal(text: str) -> Any:
    """What `ast.literal_eval` makes of a cell, ten times as fast for lists of plain strings and numbers.

    Raises ValueError where that refuses it, whatever it is refused with.
    """
    if not any(map(text.__contains__, _OWN)):
        try:
            found, end = _JSON.raw_decode(text.replace("'", '"'))
            if end == len(text):
                return found
        except (ValueError, RecursionError):
            pass  # no list of such, or none at all: Python's own reader says
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def words(text: str) -> list[str]:
    """A list of strings. Raises ValueError for anything else."""
    found = literal(text)
    if not isinstance(found, list) or not all(map(_text, found)):
        raise ValueError(f"no list of strings: {text[:80]}")
    return found


def phrase_boxes(text: str) -> list[dict[str, list[list[float]]]]:
    """A list of mappings of phrases to boxes of four numbers. Raises ValueError for anything else."""
    found = literal(text)
    good = isinstance(found, list) and all(isinstance(group, dict) for group in found)
    if not good or not all(_text(phrase) and _boxes(of) for group in found for phrase, of in group.items()):
        raise ValueError(f"no list of phrases with their boxes: {text[:80]}")
    boxes: list[dict[str, list[list[float]]]] = found
    return boxes


def _text(value: object) -> bool:
    """A string that a file can hold: an escape may have put half of a surrogate pair into it."""
    return isinstance(value, str) and (value.isascii() or _HALF.search(value) is None)


def _boxes(boxes: object) -> bool:
    if not isinstance(boxes, list | tuple):
        return False
    for box in boxes:
        if not isinstance(box, list | tuple) or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
            return False
        try:
            if not all(map(isfinite, box)):
                return False
        except OverflowError:  # a whole number of hundreds of digits
            return False
    return True
