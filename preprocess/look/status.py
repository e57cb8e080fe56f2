"""How far a store is, and what failed."""

from collections import Counter, defaultdict
from typing import Any

from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.sources.shard import READING


def status(store: Store) -> dict[str, Any]:
    """Shards committed and given up, samples by status, seconds by step, how inputs were read, and the settings."""
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
        "inputs": _inputs(store),
        "settings": store.description()["settings"],
    }


def _inputs(store: Store) -> list[dict[str, Any]]:
    """How the store's files were read, each way once, with the number of its files, shards and samples."""
    ways: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for record in store.records().values():
        given = record["input"]
        way = {name: given.get(name) or "default" for name in (*READING, "rows_per_shard")}
        ways[tuple((name, str(value)) for name, value in way.items())].append(record | {"way": way})
    return [
        found[0]["way"]
        | {"files": len({record["input"].get("url") for record in found}), "shards": len(found)}
        | {"samples": sum(record.get("samples", 0) for record in found)}
        for found in ways.values()
    ]
