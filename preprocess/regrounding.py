"""`macco-prep extract --reground`: the boxes of another detector for a store that is there."""

import signal
import sys
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from dataclasses import fields
from typing import Final

import typer

from macco.pipeline import console
from macco.pipeline.errors import UserError
from macco.preprocess.config import DEFAULT_THRESHOLD, GROUNDING, Compute, ExtractConfig, RunConfig

# The options that say something of boxes, or of how they are made; the others are of captions and files.
_MEANT: Final = {"out", "reground", "as_", *GROUNDING, *(each.name for each in fields(Compute))} | {
    each.name for each in fields(RunConfig) if each.name != "parse_workers"
}


def refuse_others(given: Collection[str]) -> None:
    """Raise UserError for options that a user gave and that mean nothing to `--reground`."""
    if others := sorted({*given} - _MEANT):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise UserError(f"--reground finds boxes for the concepts that the store holds: leave {named} out")


def reground_store(out: str, name: str | None, config: ExtractConfig, run: RunConfig) -> None:
    """Go on with a further set of boxes until it has all shards, and say what was done; exit code 1 if some failed."""
    from macco.pipeline.coverage import few_boxes
    from macco.pipeline.store import Store
    from macco.preprocess.extraction.reground import set_name
    from macco.preprocess.extraction.run import reground_shards

    run.check()
    config.check_grounding()
    known = Store.open(out)
    known.require_whole()
    name = set_name(config.detector, name, known.detector, known.sets())
    signal.signal(signal.SIGTERM, console.interrupt)
    with closing(Store.create(out, known.description()["settings"])) as store:
        summary = reground_shards(store, name, config, run)
        total: Counter[str] = Counter()
        for one in store.grounding(name).shards.values():
            total.update(one)
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(total.items()))
    print(
        f"boxes {name}: {summary.committed} shards grounded, {summary.skipped} were there, "
        f"{len(summary.failed)} failed, in {summary.seconds:.0f} s; in all {counts or 'nothing to ask'}"
    )
    for shard, why in sorted(summary.failed.items()):
        print(f"failed: {shard}: {why}", file=sys.stderr)
    if summary.failed:
        print("give the same command again", file=sys.stderr)
        raise typer.Exit(1)
    store.read_from(name)
    if summary.committed and (line := few_boxes(store, DEFAULT_THRESHOLD, extracted=True)):
        print(line, file=sys.stderr)
