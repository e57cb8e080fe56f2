"""Values held to what a type says of them; what does not fit is one line that names its key."""

from dataclasses import fields
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from macco.pipeline.errors import UserError

_adapter: Final = cache(TypeAdapter)  # to make one takes much longer than to ask it


def valid(kind: Any, values: Any, prefix: str = "") -> Any:
    """What pydantic makes of values for a type; raises UserError that names the key, after `prefix`."""
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (prefix, *first["loc"]) if part)
        raise UserError(f"{key} is {_said(first)}") from error


# What pydantic says of a number that is out of its range, and how we do.
_RANGES = {
    "greater_than_equal": "it is at least {ge}",
    "less_than_equal": "it lies between 0 and {le}",
    "less_than": "it is less than {lt}",
    "finite_number": "it is a number",
}


def _said(error: Any) -> str:
    """A value and what is wrong with it; what is text, and no number out of its range, in quotes."""
    if error["type"] not in _RANGES:
        return f"{error['input']!r}: {error['msg']}"
    ctx = {name: f"{limit:g}" for name, limit in error.get("ctx", {}).items()}
    return f"{error['input']}: {_RANGES[error['type']].format(**ctx)}"


def checked(settings: Any, prefix: str) -> Any:
    """A settings dataclass that was made in Python, held to what its fields may be; raises UserError as `valid`."""
    held = {each.name: getattr(settings, each.name) for each in fields(settings)}
    return valid(type(settings), held, prefix)
