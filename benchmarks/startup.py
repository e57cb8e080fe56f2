"""How long commands take before they do anything, and what `extract` takes where there is nothing to do.

    python benchmarks/startup.py [--repeats 3]

Each command runs in a process of its own, on a demo corpus of two shards that was extracted before. The least of some
runs is told: what other work on the machine adds is left out. benchmarks/loader.py --only first times the first batch.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREP, TRAIN = "macco.preprocess", "macco.train"


def seconds(module: str, *arguments: str) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a command."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run all of it in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as name:
        demo, store = str(Path(name) / "demo"), str(Path(name) / "store")
        seconds(PREP, "demo", demo, "--images", "40")
        extract = (PREP, "extract", "--shards", f"{demo}/*.tar", "--out", store, "--workers", "0")
        seconds(*extract)
        commands = [
            (PREP, "--help"), (PREP, "status", store), (PREP, "stats", store), (PREP, "sql", store, "SELECT 1"),
            (TRAIN, "--help"), (TRAIN, "presets"), (TRAIN, "run", "--help"), extract,
        ]  # fmt: skip
        for command in commands:
            runs = [seconds(*command) for _ in range(options.repeats)]
            shown = " ".join(Path(word).name if word.startswith("/") else word for word in command[:4])
            wall, cpu = (min(run[place] for run in runs) for place in (0, 1))
            print(f"{shown}: {wall:.2f} s, {cpu:.2f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
