"""What to do again in a store: shards that were given up, samples that failed."""

from collections import defaultdict
from typing import Any

from macco.pipeline.schema import OK
from macco.pipeline.store import Store
from macco.pipeline.views import connect
from macco.preprocess.extraction.run import Job
from macco.preprocess.sources import Shard


def failed_shards(store: Store) -> list[Job]:
    """The shards that were given up and are not committed."""
    return [Job(_shard(store.failure(name)["input"])) for name in sorted(store.failed() - store.committed())]


def failed_samples(store: Store) -> list[Job]:
    """The rows of committed shards that are not ok, one job per shard."""
    rows = connect(store).execute("SELECT shard, row FROM samples WHERE status <> ?", [OK]).fetchall()
    by_shard: dict[str, set[int]] = defaultdict(set)
    for shard, row in rows:
        by_shard[shard].add(row)
    return [
        Job(_shard(store.shard(name)["input"]), frozenset(redo)) for name, redo in sorted(by_shard.items())
    ]


def _shard(described: dict[str, Any]) -> Shard:
    fields = {name: value for name, value in described.items() if name != "fingerprint"}
    return Shard(**fields | {"captions": tuple(fields["captions"])})
