"""`macco-prep extract --reground`: the boxes of another detector for a store that is there."""

import signal
import sys
from contextlib import closing

import typer

from macco.pipeline import console
from macco.preprocess.config import ExtractConfig, RunConfig


def reground_store(out: str, name: str | None, config: ExtractConfig, run: RunConfig) -> None:
    """Go on with a further set of boxes until it has all shards, and say what was done; exit code 1 if some failed."""
    from macco.pipeline.store import Store
    from macco.preprocess.extraction.reground import counts_of, set_name
    from macco.preprocess.extraction.run import reground_shards

    run.check()
    config.check()
    known = Store.open(out)
    known.require_whole()
    name = set_name(config.detector, name, known.detector)
    signal.signal(signal.SIGTERM, console.interrupt)
    with closing(Store.create(out, known.description()["settings"])) as store:
        summary = reground_shards(store, name, config, run)
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(counts_of(store, name).items()))
    print(
        f"boxes {name}: {summary.committed} shards grounded, {summary.skipped} were there, "
        f"{len(summary.failed)} failed, in {summary.seconds:.0f} s; in all {counts or 'nothing to ask'}"
    )
    for shard, why in sorted(summary.failed.items()):
        print(f"failed: {shard}: {why}", file=sys.stderr)
    if summary.failed:
        print("give the same command again", file=sys.stderr)
        raise typer.Exit(1)
