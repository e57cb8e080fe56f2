"""A seeded campaign of faults against the commands that write.

    python -m benchmarks.faults [--faults 500] [--seed 0] [--where process|ray|both] [--kind NAME ...] [--task NAME ...]

Prints faults, kinds, rows lost and doubled, commands hung, stuck, untrue and not one line. Exit code 1 if anything but
the faults is not 0. `--where both` gives one fault in forty to Ray.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # no threads: this process forks
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks.faults.campaign import Tally, campaign, plan, side_by_side
from benchmarks.faults.command import Command, warm
from benchmarks.faults.kinds import KINDS, Strike
from benchmarks.faults.scene import Scene
from benchmarks.faults.tasks import TASKS

LIMIT = 300.0  # seconds that a command may take, be the machine as busy as it may


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", choices=("process", "ray", "both"), default="process")
    parser.add_argument("--kind", action="append", help="may be repeated; default: all")
    parser.add_argument(
        "--task", choices=sorted(TASKS), action="append", help="may be repeated; default: all"
    )
    parser.add_argument("--shards", type=int, default=2, help="three times as many on Ray")
    parser.add_argument("--jobs", type=int, default=1, help="processes, but on Ray")
    options = parser.parse_args()
    on_ray = {"process": 0, "ray": options.faults, "both": options.faults // 40}[options.where]
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm()
        if options.faults > on_ray:
            corpus, store = _extracted(folder / "process", options.shards)
            scenes = [
                Scene(task, TASKS[task], corpus, store, folder / task, limit=LIMIT, more=[*TASKS[task].alone])
                for task in options.task or TASKS
            ]
            for scene in scenes:
                scene.begin()
                _tell(f"{scene.name}: {scene.writes} writes, {scene.seconds:.1f} s")
            chosen = _chosen(KINDS, options.kind)
            faults = plan(scenes, chosen, options.faults - on_ray, options.seed)
            tally += side_by_side(faults, chosen, options.seed, options.jobs, _tell)
        if on_ray:
            from benchmarks.faults.cluster import RAY_KINDS, on_cluster

            corpus, store = _extracted(folder / "ray", 3 * options.shards)
            task = TASKS["extract"]
            scene = on_cluster(Scene("extract on Ray", task, corpus, store, folder / "on ray", LIMIT))
            chosen = _chosen(RAY_KINDS, options.kind)
            try:
                faults = plan([scene.begin()], chosen, on_ray, options.seed)
                tally += campaign(faults, chosen, options.seed, _tell)
            finally:
                scene.cluster.stop()
    print(tally.table())
    print(tally)
    sys.exit(bool(tally.bad()))


def _extracted(folder: Path, shards: int) -> tuple[Path, Path]:
    """A corpus of shards of one image, and the store of it."""
    from macco.preprocess.demo import write_corpus

    corpus, store, said = folder / "corpus", folder / "store", folder / "said"
    write_corpus(corpus, images=shards, seed=5, shard_size=1)
    if Command([*TASKS["extract"].arguments(corpus, store), *TASKS["extract"].alone], said).wait(300.0):
        raise RuntimeError(f"the store could not be made: {said.read_text()}")
    return corpus, store


def _chosen(kinds: Mapping[str, Strike], names: list[str] | None) -> dict[str, Strike]:
    return {name: strike for name, strike in kinds.items() if names is None or name in names}


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
