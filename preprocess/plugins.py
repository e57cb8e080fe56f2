"""Detectors and parsers that other packages bring, by entry points."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from macco.pipeline.errors import UserError

DETECTORS: Final = "macco.detectors"
PARSERS: Final = "macco.parsers"


def plugins(group: str) -> dict[str, EntryPoint]:
    """What other packages add to a group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def made(point: EntryPoint, what: str) -> Any:
    """An object of a plug-in's class; raises UserError, with `what` it is, where that fails."""
    try:
        return point.load()()
    except Exception as error:  # it is another's program
        raise UserError(f"{what} {point.name} ({point.value}) does not load: {error}") from error
