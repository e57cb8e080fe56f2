"""A shard's record: what is written, last, of a shard that is done."""

import json
from typing import Any, Final

from macco.pipeline.schema import TABLES

Record = dict[str, Any]

GONE: Final = "gone"  # in the record of a shard that no longer is, though a pack holds it

_TEXTS: Final = ("shard", "file", "dataset")
_NUMBERS: Final = (*TABLES, "max_side")
_COUNTS: Final[dict[str, type]] = {
    "statuses": int,
    "bytes": int,
    "seconds": float,
    "versions": str,
}  # by name


def read_json(data: bytes) -> Any:
    """What JSON says, where its texts are such that UTF-8, and so every table, can hold them. Raises ValueError."""
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested without end") from error
    if b"\\ud" in data.lower():  # half a surrogate pair, it may be
        json.dumps(value, ensure_ascii=False).encode()
    return value


def is_record(value: Any) -> bool:
    """Tell a shard's record, as any version wrote it, from other JSON: each thing that it says is of its type."""
    if not isinstance(value, dict) or not (isinstance(value.get("shard"), str) or value.get(GONE)):
        return False
    said = {name: one for name, one in value.items() if one is not None}
    counts = [(kind, said[name]) for name, kind in _COUNTS.items() if name in said]
    return (
        all(isinstance(said[name], str) for name in _TEXTS if name in said)
        and all(_is(int, said[name], 2**31) for name in _NUMBERS if name in said)
        and all(isinstance(by_name, dict) for _, by_name in counts)
        and all(_is(kind, one) for kind, by_name in counts for one in by_name.values())
        and said.get("bytes", TABLES).keys() >= TABLES.keys()
        and ("bytes" not in said or said.keys() >= TABLES.keys())
        and "/" not in said.get("file", "")
    )


def _is(kind: type, value: Any, most: int = 2**62) -> bool:
    """Tell a text, a count, or seconds, which are whole ones at times; integers are such that Arrow holds."""
    if isinstance(value, int):
        return kind is not str and abs(value) < most
    return isinstance(value, kind)
