"""What does the machinery cost? CPU seconds of the driver and of the commits, as a share of the whole run's.

    python benchmarks/machinery.py [--shards 3] [--samples 1000] [--workers 2]

Extracts demo shards of `--samples` captions each on Ray, with the demo's detector, the fastest that ships. The driver's
seconds are those of its process from the first shard handed out to the end (starting Ray and planning stand beside),
those of its own code and those of Ray's threads in it; a commit's are those of Store.commit in the grounding actor; the
whole is the CPU time of the driver and of all actors while shards are done. Goal: under 1 %.

The driver's threads cost something every second, however little is done in it: on a crowded machine, where a run takes
longer for the same work, their share grows. So the cost of a second stands beside it, and the share that it would be
where every actor had a core to itself.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.demo import write_corpus
from macco.preprocess.extraction import actors, on_ray, pool
from macco.preprocess.extraction.run import Job, extract_shards
from macco.preprocess.sources import plan

CAPTIONS = 5  # of a demo image


class MeteredStore(Store):
    """A store that notes the CPU seconds of its commits, beside it."""

    def commit(self, shard: str, tables: Mapping[str, pa.Table], record: Mapping[str, Any]) -> None:
        start = time.thread_time()
        super().commit(shard, tables, record)
        _note(self.url, "commit", time.thread_time() - start)


class MeteredGrounder(actors.Grounder):
    """A grounding actor that notes the CPU seconds of its shards."""

    def commit(self, job: Job, parser: Any) -> dict[str, int]:
        self._store = MeteredStore(self._store.url)
        start = time.process_time()
        statuses = super().commit(job, parser)
        _note(self._store.url, "ground", time.process_time() - start)
        return statuses


class MeteredParser(actors.Parser):
    """A parsing actor that notes the CPU seconds of its parses."""

    def parse(self, captions: Any, names: Any) -> Any:
        start = time.process_time()
        graphs = super().parse(captions, names)
        _note(os.environ["METERED"], "parse", time.process_time() - start)
        return graphs


def _note(url: str, what: str, seconds: float) -> None:
    with open(f"{url}.seconds", "a") as file:  # short lines, each written at once
        file.write(json.dumps([what, seconds]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    pool.Grounder, pool.Parser = MeteredGrounder, MeteredParser  # type: ignore[misc]
    loop, give = on_ray._Run.to_its_end, on_ray._Run.give
    clocks = time.process_time, time.thread_time, time.monotonic
    begun: list[list[float]] = []
    spent: list[float] = []

    def metered_give(self: on_ray._Run, now: float) -> None:
        if self.pool.up() and not begun:
            begun.append([clock() for clock in clocks])
        give(self, now)

    def metered(self: on_ray._Run) -> None:
        loop(self)
        spent.extend(clock() - start for clock, start in zip(clocks, begun[0], strict=True))

    on_ray._Run.give = metered_give  # type: ignore[method-assign]
    on_ray._Run.to_its_end = metered  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = options.samples // CAPTIONS
        write_corpus(folder / "corpus", images=images * options.shards, seed=0, shard_size=images)
        config = ExtractConfig(device="cpu")
        url = str(folder / "store")
        os.environ["METERED"] = url  # Ray's workers inherit it
        start = time.process_time()
        store = Store.create(url, config.settings())
        jobs = [Job(shard) for shard in plan([f"{folder}/corpus/*.tar"])]
        summary = extract_shards(store, jobs, config, RunConfig(workers=options.workers))
        all_driver = time.process_time() - start
        seconds = {"commit": 0.0, "ground": 0.0, "parse": 0.0}
        for line in Path(f"{url}.seconds").read_text().splitlines():
            what, took = json.loads(line)
            seconds[what] += took
    assert not ray.is_initialized()
    driver, own, wall = spent
    work = seconds["ground"] + seconds["parse"]
    whole = driver + work
    print(
        f"{summary.committed} shards, {sum(summary.samples.values())} samples in {wall:.0f} s; "
        f"CPU seconds: {whole:.1f} in all, of which driver {driver:.2f} ({driver / whole:.2%}; own code {own:.2f}), "
        f"commits {seconds['commit']:.2f} ({seconds['commit'] / whole:.2%}); "
        f"driver with start, imports and plan {all_driver:.1f}\n"
        f"driver {1000 * driver / wall:.1f} ms a second, which is {driver / wall / options.workers:.2%} of the work of "
        f"{options.workers} grounding actors with a core each"
    )


if __name__ == "__main__":
    main()
