"""What rows were made with: whether two makings are one."""

from collections.abc import Mapping
from typing import Any, Final

# Models that are files: their fingerprints are of what these hold.
_OF_CONTENT: Final = ("boxes", "graphs", "factual", "groundingdino", "transformers")


def difference(made: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """The first setting, by name, that is another; None where all are the same.

    A model of files is the same wherever they lie, if its fingerprint, the setting NAME_fingerprint, is.
    """
    for name in sorted({*made, *asked}):
        if made.get(name) != asked.get(name) and not _same_model(name, made, asked):
            return name
    return None


def _same_model(name: str, made: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    prints = [one.get(f"{name}_fingerprint") for one in (made, asked)]
    kinds = [str(one.get(name)).partition(":")[0] for one in (made, asked)]
    return (
        prints[0] is not None and prints[0] == prints[1] and kinds[0] == kinds[1] and kinds[0] in _OF_CONTENT
    )
