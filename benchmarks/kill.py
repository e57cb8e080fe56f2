"""Kill -9 of the driver or of a worker at random moments, then the same command: are the rows the same?

    python benchmarks/kill.py [--rounds 10] [--seed 0] [--images 240]

Each round extracts a demo corpus on Ray, kills one process after a random time, runs the command again until
it ends well, and compares every row with an extraction that nobody disturbed. Exit code 1 on a difference.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.demo import write_corpus


def rows(url: Path) -> dict[str, dict[str, list[Any]]]:
    store = Store.open(str(url))
    return {
        shard: {name: store.table(name, shard).to_pylist() for name in TABLES}
        for shard in sorted(store.committed())
    }


def victims(kind: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if kind in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=240)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus", images=options.images, seed=5, shard_size=10)
        command = [
            sys.executable,
            "-m",
            "macco.preprocess.cli",
            "extract",
            "--device",
            "cpu",
            "--workers",
            "2",
        ]
        command += ["--shards", f"{folder}/corpus/*.tar", "--out"]
        start = time.monotonic()
        subprocess.run([*command, str(folder / "calm")], check=True, capture_output=True)
        calm_seconds = time.monotonic() - start
        calm = rows(folder / "calm")
        differences = 0
        for number in range(options.rounds):
            out = folder / f"round{number}"
            target = rng.choice(("driver", "ray::Grounder", "ray::Parser"))
            moment = rng.uniform(0.3, 1.0) * calm_seconds
            process = subprocess.Popen(
                [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                hit = [psutil.Process(process.pid)] if target == "driver" else victims(target)[:1]
                for one in hit:
                    one.kill()
            process.wait()
            committed = len(Store.open(str(out)).committed()) if (out / "store.json").exists() else 0
            while subprocess.run([*command, str(out)], capture_output=True).returncode not in (0,):
                time.sleep(1)  # the killed run's workers may still hold the store
            same = rows(out) == calm
            differences += not same
            print(
                f"round {number}: killed {target} after {moment:.1f} s, exit {process.returncode}, "
                f"{committed}/{len(calm)} shards were committed, rows {'equal' if same else 'DIFFER'}",
                flush=True,
            )
            left = [p.pid for p in victims("ray::Grounder")]
            print(f"  workers left over: {len(left)}", flush=True)
    print(f"{options.rounds} rounds, {differences} with other rows")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
