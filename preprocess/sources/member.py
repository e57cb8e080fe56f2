"""A file of a sample, of a tar or a folder, and the captions that a sample's files hold."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from macco.pipeline.schema import OK, Status
from macco.preprocess.graph.refusal import CaptionError, captions_of


@dataclass(slots=True)
class Member:
    """A file in a tar; `data` is None where it is too large or was not asked for."""

    name: str
    offset: int  # of its first byte, in the uncompressed tar
    size: int
    data: bytes | None
    target: str | None = None  # name of the member that a link points to


def read_captions(
    found: Mapping[str, Member], names: tuple[str, ...]
) -> tuple[tuple[str | CaptionError, ...], Status, str | None]:
    """Return the captions of a sample's files, by extension, and what is wrong with the sample, in words."""
    text = found["txt"].data if "txt" in found else None
    fields: Any = {}
    status: Status = OK
    error = None
    if "json" in found and found["json"].data is not None and names != ("txt",):
        try:
            fields = json.loads(found["json"].data)
            if not isinstance(fields, dict):
                fields, status, error = {}, Status.BAD_JSON, f"{found['json'].name!r} holds no object"
        except UnicodeDecodeError as problem:
            status, error = Status.BAD_ENCODING, f"{found['json'].name!r}: {problem}"
        except (ValueError, RecursionError) as problem:
            status, error = Status.BAD_JSON, f"{found['json'].name!r}: {problem}"
    if names:
        values = [text if name == "txt" else fields.get(name) for name in names]
    elif fields.get("captions"):
        values = [fields["captions"]]
    else:
        values = [text if "txt" in found else fields.get("caption")]
    if status == OK and all(value is None for value in values):
        places = ", ".join(names) or "txt, json captions or json caption"
        return (), Status.MISSING_CAPTION, f"nothing in {places}"
    return tuple(one for value in values if value is not None for one in captions_of(value)), status, error
