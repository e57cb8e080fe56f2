"""Whether a store is whole: every file is read, and held against the records."""

from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from macco.pipeline.commits import Commits
from macco.pipeline.errors import UserError
from macco.pipeline.groundings import GROUNDINGS
from macco.pipeline.query import connect, reason
from macco.pipeline.schema import BOXES, TABLES
from macco.pipeline.store import Store
from macco.pipeline.views import scan

# What must hold of the rows of a file's shards; a query gives the shards of which it does not.
_RULES: Final = {
    "rows are not numbered from 0": "SELECT shard FROM samples GROUP BY shard HAVING count(*) <> max(row) + 1 "
    "OR count(DISTINCT row) <> count(*)",
    "samples are there twice": "SELECT shard FROM samples GROUP BY shard, sample_id HAVING count(*) > 1",
    "concepts have no sample": "SELECT c.shard FROM concepts c ANTI JOIN samples USING (sample_id)",
    "boxes have no concept": "SELECT b.shard FROM boxes b ANTI JOIN concepts USING (concept_id)",
    "spans are not their captions' words": 'SELECT c.shard FROM concepts c JOIN samples USING (sample_id) WHERE '
    'substring(caption, start + 1, "end" - start) <> text',
}  # fmt: skip


def verify(store: Store) -> dict[str, Any]:
    """Read every row of a store; what is not whole by shard, and files that belong to none."""
    commits = store.commits()
    damaged = dict(commits.damaged)
    files: dict[str, dict[str, tuple[int | None, ...]]] = defaultdict(dict)
    for shard, file, *counts in zip(*(column.to_pylist() for column in commits.core.columns), strict=True):
        files[file][shard] = tuple(counts)
    with connect(store, views=False, memory="2GB") as connection:
        for file, shards in files.items():
            damaged |= _file(store, connection, commits, file, shards)
    rows = pc.sum(commits.core["samples"]).as_py() or 0  # a record may not say how many
    whole = {*commits.shards} - damaged.keys()
    sets = {name: _boxes(store, name, whole) for name in store.groundings()}
    found = {
        "store": store.url,
        "shards": commits.core.num_rows + len(commits.damaged),
        "files": len(files) * len(TABLES) + sum(one["shards"] for one in sets.values()),
        "samples": rows,
        "not whole": dict(sorted(damaged.items())),
        "files of no shard": list(commits.foreign),
    }
    sets |= {name: {"shards": 0, "not whole": {"all": why}} for name, why in store.unreadable().items()}
    return found | ({"boxes": dict(sorted(sets.items()))} if sets else {})


def sets_not_whole(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What of further sets of boxes `verify` found not to be whole, by their names."""
    return {name: one["not whole"] for name, one in found.get("boxes", {}).items() if one["not whole"]}


def take_out(store: Store, found: dict[str, Any]) -> str:
    """Remove what `verify` found not to be whole; returns a line that says what that was."""
    sets = sets_not_whole(found)
    with closing(Store.create(store.url, store.description()["settings"])) as own:
        own.drop([*found["not whole"]])
        for name, shards in sets.items():
            own.drop_grounding(name, shards)
        own.write_views()
    also = [f"{len(shards)} of the boxes {name}" for name, shards in sets.items()]
    return f"{', '.join([str(len(found['not whole'])), *also])} shards taken out"


def _boxes(store: Store, name: str, shards: Collection[str]) -> dict[str, Any]:
    """What is wrong with a further set of boxes, every row of which is read."""
    found = store.grounding(name)
    damaged = dict(found.damaged)
    for shard in found.shards:
        place = f"{GROUNDINGS}/{name}/{shard}.parquet"
        try:
            data = store.read(place)
        except OSError as error:
            raise UserError(f"{store.url} cannot be read now: {error}") from error
        try:
            table = pq.read_table(pa.BufferReader(data), schema=BOXES)
        except (pa.ArrowException, OSError) as error:
            damaged[shard] = f"{place} cannot be read ({str(error).splitlines()[0]})"
            continue
        if shard in shards:  # the concepts of others are not whole
            known = store.table("concepts", shard)["concept_id"].combine_chunks()
            if not pc.all(pc.is_in(table["concept_id"], known)).as_py():
                damaged[shard] = f"{place} has boxes of no concept"
    return {"shards": len(found.shards) + len(found.damaged), "not whole": dict(sorted(damaged.items()))}


def _file(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    commits: Commits,
    file: str,
    shards: dict[str, tuple[int | None, ...]],
) -> dict[str, str]:
    """What is wrong with the shards of one file."""
    part = commits.parts([file])
    try:
        for table in TABLES:
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM {scan(store.url, table, part)}"
            )
        damaged = {}
        for place, table in enumerate(TABLES):
            rows = dict(connection.execute(f"SELECT shard, count(*) FROM {table} GROUP BY 1").fetchall())
            for shard in rows.keys() - shards.keys():
                return dict.fromkeys(shards, f"{table}/{file}.parquet has rows of shard {shard}")
            for shard, counts in shards.items():
                found = rows.get(shard, 0)
                if counts[place] is not None and found != counts[place]:
                    damaged[shard] = f"{table}/{file}.parquet has {found:,} of its {counts[place]:,} rows"
        for problem, query in _RULES.items():
            for (shard,) in connection.execute(f"SELECT DISTINCT shard FROM ({query})").fetchall():
                damaged.setdefault(shard, problem)
        return damaged
    except duckdb.Error as error:
        if not store.local and _is_whole(store, file):
            raise UserError(f"{store.url} cannot be read now: {reason(error)}") from error
        return dict.fromkeys(shards, reason(error))


def _is_whole(store: Store, file: str) -> bool:
    """Tell a file that is damaged from an answer that broke off: a whole one is not to be dropped for that."""
    try:
        for table in TABLES:
            pq.read_table(pa.BufferReader(store.read(f"{table}/{file}.parquet")))
    except (FileNotFoundError, pa.ArrowException):
        return False
    return True
