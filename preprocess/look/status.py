"""How far a store is, and what failed."""

from collections import Counter
from typing import Any

from macco.pipeline.query import connect
from macco.pipeline.store import Store


def status(store: Store) -> dict[str, Any]:
    """Shards committed and given up, samples by status, seconds by step, and the settings."""
    connection = connect(store)
    samples = connection.execute(
        "SELECT status, count(*) FROM samples GROUP BY status ORDER BY 2 DESC, 1"
    ).fetchall()
    seconds: Counter[str] = Counter()
    for (shard,) in connection.execute("SELECT seconds FROM shards").fetchall():
        seconds.update(shard)
    committed = store.committed()
    failed = {
        name: store.failure(name)["error"].strip().rsplit("\n", 1)[-1] for name in store.failed() - committed
    }
    return {
        "store": store.url,
        "shards": {"committed": len(committed), "failed": dict(sorted(failed.items()))},
        "samples": dict(samples),
        "seconds": {step: round(value, 1) for step, value in sorted(seconds.items())},
        "settings": store.description()["settings"],
    }
