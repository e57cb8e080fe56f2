"""Words that people put on samples while they look at them: one small Parquet file in the store, and a view `tags`."""

import io
from collections.abc import Iterable
from datetime import UTC, datetime
from threading import Lock
from typing import Final
from unicodedata import category

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.views import literal, parquet

NAME: Final = "tags.parquet"
LONGEST: Final = 100  # characters
_BROKEN: Final = {"Cc", "Cs", "Zl", "Zp"}  # no part of a line: controls, halves of characters, ends of lines

# One row per sample and tag.
TAGS: Final = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

_WRITING = Lock()


def view_sql(store: Folder) -> str:
    """SQL that makes the view `tags` (sample_id, tag, at), empty where nobody has tagged anything."""
    there = store.exists(NAME)
    rows = (
        parquet(literal(store.path(NAME) if store.local else f"{store.url}/{NAME}"))
        if there
        else "(VALUES ('', '', now()))"
    )
    return f'CREATE OR REPLACE TEMP VIEW tags AS SELECT * FROM {rows} t(sample_id, tag, "at") WHERE {there}'


def read(store: Folder) -> pa.Table:
    """All rows."""
    if not store.exists(NAME):
        return TAGS.empty_table()
    try:
        return pq.read_table(io.BytesIO(store.read(NAME))).cast(TAGS)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(unreadable(store, str(error).splitlines()[0])) from error


def unreadable(store: Folder, why: str) -> str:
    return f"{store.url}/{NAME} cannot be read: {why}; it holds the tags alone: mend it, or move it away"


def by_sample(store: Folder) -> dict[str, list[str]]:
    """The tags of each sample that has any."""
    found: dict[str, list[str]] = {}
    for row in read(store).to_pylist():
        found.setdefault(row["sample_id"], []).append(row["tag"])
    return found


def change(store: Folder, samples: Iterable[str], tag: str, on: bool) -> None:
    """Put a tag on some samples, or take it off them; twice is once. Raises UserError where it cannot be written.

    The file is replaced whole: readers see the old one or the new one. Two programs that tag at once overwrite each
    other's last change.
    """
    tag = tag.strip()
    # Emoji are joined by characters that are not printable themselves.
    if len(tag) > LONGEST or not any(map(str.isprintable, tag)) or not _BROKEN.isdisjoint(map(category, tag)):
        raise UserError(f"a tag is a line of 1 to {LONGEST} characters, and not {tag!r}")
    wanted = list(dict.fromkeys(samples))
    with _WRITING:
        rows = read(store)
        same = pc.and_(pc.equal(rows["tag"], tag), pc.is_in(rows["sample_id"], pa.array(wanted, pa.string())))
        kept = rows.filter(pc.invert(same))
        if on:
            at = [datetime.now(UTC)] * len(wanted)
            new = pa.table({"sample_id": wanted, "tag": [tag] * len(wanted), "at": at}, schema=TAGS)
            kept = pa.concat_tables([kept, new])
        out = io.BytesIO()
        pq.write_table(kept, out, compression="zstd")
        try:
            store.put(NAME, out.getvalue())
        except OSError as error:
            raise UserError(f"cannot write {store.url}/{NAME}: {error}") from error
