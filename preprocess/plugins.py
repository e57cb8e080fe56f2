"""Detectors and parsers that other packages bring, by entry points."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from macco.pipeline.errors import UserError

DETECTORS: Final = "macco.detectors"
PARSERS: Final = "macco.parsers"
METHODS: Final = ("check", "fingerprint", "load")  # of a plug-in's class: `Backend` of either kind


def plugins(group: str) -> dict[str, EntryPoint]:
    """What other packages add to a group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def made(point: EntryPoint, what: str) -> Any:
    """An object of a plug-in's class; raises UserError, with `what` it is, where that fails or it lacks a method."""
    try:
        found = point.load()()
    except Exception as error:  # it is another's program
        raise UserError(f"{what} {point.name} ({point.value}) does not load: {error}") from error
    return having(found, METHODS, f"{what} {point.name} ({point.value})")


def having(found: Any, names: Sequence[str], what: str) -> Any:
    """The same; raises UserError, with `what` it is, where it lacks any of what is asked of it by these names."""
    missing = [name for name in names if not hasattr(found, name)]
    if missing:
        raise UserError(f"{what} has no {', '.join(missing)}: {', '.join(names)} are needed")
    return found
