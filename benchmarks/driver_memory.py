"""Does the driver's memory grow with the number of shards?

Extracts many tiny shards on Ray and prints the driver's resident memory along the way:

    python benchmarks/driver_memory.py [--shards 2000] [--workers 2]
"""

import argparse
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.demo import write_corpus
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.extraction.run import Job, RunConfig, extract_shards
from macco.preprocess.sources import plan


def many_tars(folder: Path, count: int) -> None:
    """Write one demo image again and again, each time into a tar of its own."""
    write_corpus(folder / "one", images=1, seed=0, shard_size=1)
    with tarfile.open(folder / "one" / "00000.tar") as tar:
        members = [(info, tar.extractfile(info)) for info in tar]
        contents = [(info, file.read()) for info, file in members if file is not None]
    import io

    for number in range(count):
        with tarfile.open(folder / f"{number:05}.tar", "w") as tar:
            for info, data in contents:
                tar.addfile(info, io.BytesIO(data))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    process = psutil.Process()
    memory: list[float] = []
    committed = RunProgress.committed

    def watch(self: RunProgress, statuses: Mapping[str, int]) -> None:
        committed(self, statuses)
        memory.append(process.memory_info().rss / 2**20)

    RunProgress.committed = watch  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many_tars(folder, options.shards)
        config = ExtractConfig(device="cpu")
        store = Store.create(str(folder / "store"), config.settings())
        jobs = [Job(shard) for shard in plan([f"{folder}/*.tar"])]
        summary = extract_shards(store, jobs, config, RunConfig(workers=options.workers))
    print(f"{summary.committed} shards in {summary.seconds:.0f} s, {len(summary.failed)} failed")
    for share in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0):
        place = max(1, round(share * len(memory)))
        print(f"after {place:6} shards: driver {memory[place - 1]:7.1f} MiB")
    start, end = memory[len(memory) // 10], memory[-1]
    per_shard = (end - start) / len(memory) / 0.9 * 1024
    print(f"growth over the last 90 %: {end - start:+.1f} MiB, {per_shard:+.2f} KiB per shard")


if __name__ == "__main__":
    main()
