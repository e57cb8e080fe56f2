"""A seeded campaign of faults against the commands of stage 1.

    python -m benchmarks.faults [--faults 500] [--seed 0] [--where process|ray] [--kind NAME ...] [--task NAME]

Prints faults, kinds, rows lost and doubled, commands hung. Exit code 1 if anything but the faults is not 0.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # no threads: this process forks
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks.faults.campaign import campaign
from benchmarks.faults.command import warm
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.scene import Scene
from benchmarks.faults.tasks import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", choices=("process", "ray"), default="process")
    parser.add_argument("--kind", action="append", help="may be repeated; default: all")
    parser.add_argument("--task", choices=sorted(TASKS), default="extract")
    parser.add_argument("--shards", type=int, help="default: 6; 24 on Ray")
    options = parser.parse_args()

    from macco.preprocess.demo import write_corpus

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(
            folder / "corpus",
            images=options.shards or (24 if options.where == "ray" else 6),
            seed=5,
            shard_size=1,
        )
        warm()
        task = TASKS[options.task]
        scene = Scene(task, folder / "corpus", folder, limit=60.0, more=[*task.more])
        kinds = KINDS
        if options.where == "ray":
            from benchmarks.faults.cluster import RAY_KINDS, on_cluster

            kinds = RAY_KINDS
            scene = on_cluster(scene)
        chosen = {name: kinds[name] for name in options.kind or kinds}
        try:
            tally = campaign(
                scene.begin(), chosen, options.faults, options.seed, lambda line: print(line, flush=True)
            )
        finally:
            if scene.cluster is not None:
                scene.cluster.stop()
    print(tally)
    sys.exit(bool(tally.bad()))


if __name__ == "__main__":
    main()
