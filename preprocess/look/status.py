"""How far a store is, and what failed."""

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from macco.pipeline.commits import PACKS, Commits
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.views import literal, parquet
from macco.preprocess.config import READING

BUSY = ("decoders", "detector")  # in the seconds of a shard's record
SHOWN = 20  # of a list of files or shards


def status(store: Store) -> dict[str, Any]:
    """Shards committed, not whole and given up, samples by status, seconds by step, how inputs were read, the settings.

    The records are read, and not the tables.
    """
    commits = store.commits()
    with connect(store, views=("shards",), commits=commits) as connection:
        unknown = connection.execute("SELECT count(*) FROM shards WHERE statuses IS NULL").fetchall()[0][0]
        counted = _COUNTED.format(column="statuses")
        samples = connection.execute(counted).fetchall() if not unknown else _by_row(store, commits)
        seconds = connection.execute(_COUNTED.format(column="seconds")).fetchall()
        inputs = connection.execute(_INPUTS).fetchall()
    asked = counts(store, commits)
    total = dict(seconds).get("total", 0)
    there = {*commits.shards, *commits.damaged}
    failed = {
        name: record["error"].strip().rsplit("\n", 1)[-1]
        for name, record in store.records("failed").items()
        if name not in there
    }
    found = {
        "store": store.url,
        "shards": {"committed": commits.core.num_rows, "failed": failed},
        "samples": dict(samples),
        "seconds": {name: round(value, 1) for name, value in sorted(seconds)},
        # Of a grounding worker's time: the share that its detector was at work, and how many threads decoded.
        "busy": {name: round(value / total, 2) for name, value in sorted(seconds) if name in BUSY and total},
        "inputs": [
            _way(json.loads(way)) | dict(zip(_COUNTS, counts, strict=True)) for way, *counts in inputs
        ],
        "settings": store.description()["settings"],
    }
    if sets := _sets(store, there):
        found["boxes"] = sets
    if asked:
        found["counts"] = asked
    if commits.damaged:
        found["shards"]["not whole"] = dict(sorted(commits.damaged.items())[:SHOWN])
    if commits.foreign:
        found["files of no shard"] = [*commits.foreign[:SHOWN]]
    return found


def _sets(store: Store, shards: Collection[str]) -> dict[str, Any]:
    """The further sets of boxes: their shards, settings, what their detector could not do, and what is not whole."""
    found: dict[str, Any] = {
        name: {"shards": 0, "not whole": why} for name, why in store.unreadable().items()
    }
    for name, settings in store.groundings().items():
        grounded = store.grounding(name)
        asked: Counter[str] = Counter()
        for one in grounded.shards.values():
            asked.update(one)
        found[name] = {"shards": len(grounded.shards.keys() & shards), **settings}
        if asked:
            found[name]["counts"] = dict(sorted(asked.items()))
        if grounded.damaged:
            found[name]["not whole"] = dict(sorted(grounded.damaged.items())[:SHOWN])
    return dict(sorted(found.items()))


def counts(store: Store, commits: Commits) -> dict[str, int]:
    """What the parser and the detector could not do with captions and phrases, over all shards, by what it was."""
    records = "SELECT record FROM loose"
    if commits.packs:
        packs = [literal(f"{store.url}/{PACKS}/{name}.parquet") for name in commits.packs]
        records += f" UNION ALL SELECT record FROM {parquet(*packs)} SEMI JOIN committed USING (shard, file)"
    with connect(store, views=("shards",), commits=commits) as connection:
        return dict(connection.execute(_ASKED.format(records=records)).fetchall())


def _by_row(store: Store, commits: Commits) -> list[Any]:
    """The same of the rows themselves: imports by a former version did not count them."""
    with connect(store, views=("samples",), commits=commits) as connection:
        rows: list[Any] = connection.execute(_BY_ROW).fetchall()
    return rows


_ASKED = """
    SELECT one.key, sum(one.value)::BIGINT FROM (
        SELECT unnest(map_entries((record::JSON -> 'counts')::MAP(VARCHAR, BIGINT))) AS one FROM ({records})
    ) GROUP BY 1 ORDER BY 1"""

_COUNTED = """
    SELECT one.key, sum(one.value) FROM (SELECT unnest(map_entries({column})) AS one FROM shards)
    GROUP BY 1 ORDER BY 2 DESC, 1"""

_BY_ROW = "SELECT status, count(*) FROM samples GROUP BY status ORDER BY 2 DESC, 1"

_COUNTS = ("files", "shards", "samples")
_NAMES = (*READING, "rows_per_shard")
_INPUTS = f"""
    SELECT json_object({", ".join(f"'{name}', input->'$.{name}'" for name in _NAMES)}) AS way,
           count(DISTINCT input->>'$.url'), count(*), sum(samples)
    FROM shards GROUP BY 1 ORDER BY min(shard)"""


def _way(given: dict[str, Any]) -> dict[str, Any]:
    """How files were read."""
    return {name: given.get(name) or "default" for name in _NAMES}
