"""What to do again in a store: shards that were given up, samples that failed."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.preprocess.extraction.shard import Job
from macco.preprocess.sources import Shard


def failed_shards(store: Store) -> list[Job]:
    """The shards that were given up and are not committed."""
    return [Job(_shard(store.failure(name))) for name in sorted(store.failed() - store.committed())]


def failed_samples(store: Store) -> list[Job]:
    """The rows of committed shards that are not ok, one job per shard."""
    rows = (
        connect(store, views=("samples",))
        .execute("SELECT shard, row FROM samples WHERE status <> ?", [OK])
        .fetchall()
    )
    by_shard: dict[str, set[int]] = defaultdict(set)
    for shard, row in rows:
        by_shard[shard].add(row)
    return [Job(_shard(store.shard(name)), frozenset(redo)) for name, redo in sorted(by_shard.items())]


def _shard(record: Mapping[str, Any]) -> Shard:
    shard = Shard.of(record)
    if shard is None:
        raise UserError(
            f"shard {record['shard']} was imported, not extracted: import it again with --replace"
        )
    return shard
