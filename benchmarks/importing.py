"""The authors' TSV at full size into a store: rows per second, CPU, memory, against one row after another.

    python -m benchmarks.importing [--rows 110000] [--images 110000] [--workers 2] [--naive 1000] [--folder DIR]

Writes a TSV of the authors' kind (ten columns, lists as Python literals) in DIR or a temporary folder, and its images
beside: 640 x 480 JPEGs of about COCO's weight, a few hundred pictures under many names. `macco-prep import` then runs
in a process of its own. The naive way is timed on some of the rows, in one process: each cell by `ast.literal_eval`,
each row's picture decoded and hashed whole. Memory is that of all processes together, pages that they share counted
once.
"""

import argparse
import ast
import csv
import os
import resource
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from benchmarks.loader import photo
from macco.pipeline.pictures import decode, dhash
from macco.preprocess.exchange.records import COLUMNS

TSV = "mscoco_object_relation_attribute_with_phrase_bbox.tsv"
PICTURES = 200
THINGS = "dog cat man woman boy girl table bench horse train bus car bear zebra kite board".split()  # noqa: SIM905
KINDS = "red blue small large old young wooden white black brown green tall".split()  # noqa: SIM905
RELATIONS = ("sitting on", "standing next to", "holding", "in front of", "riding", "looking at", "with")
MB = 2**20


def write(folder: Path, rows: int, images: int) -> Path:
    """Write the TSV and its images, links to a few pictures."""
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir(parents=True)
    for number in range(PICTURES):
        (folder / f"pictures/{number}.jpg").write_bytes(photo(random))
    sizes = [path.stat().st_size for path in (folder / "pictures").iterdir()]
    print(f"{images:,} names of {PICTURES} pictures of {np.mean(sizes) / 1000:.0f} kB on average")
    (folder / "coco/train2014").mkdir(parents=True)
    for number in range(images):
        os.link(folder / f"pictures/{number % PICTURES}.jpg", folder / _name(number))
    with (folder / TSV).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_row(random, _name(number % images)) for number in range(rows)])
    print(f"{rows:,} rows, {(folder / TSV).stat().st_size / MB:.0f} MiB")
    return folder / TSV


def _name(number: int) -> str:
    return f"coco/train2014/COCO_train2014_{number:012}.jpg"


def _row(random: np.random.Generator, path: str) -> list[str]:
    things = random.choice(THINGS, 3, replace=False).tolist()
    kinds = random.choice(KINDS, 3).tolist()
    first, second = random.choice(RELATIONS, 2, replace=False).tolist()
    caption = (
        f"A {kinds[0]} {things[0]} {first} a {kinds[1]} {things[1]} {second} the {kinds[2]} {things[2]}."
    )
    relations = [f"{things[0]} {first} {things[1]}", f"{things[1]} {second} {things[2]}"]
    attributes = [f"{kind} {thing}" for kind, thing in zip(kinds, things, strict=True)]
    boxes = {phrase: _boxes(random) for phrase in (*relations, *attributes)}
    wrong = caption.replace(things[0], "?").replace(things[1], things[0]).replace("?", things[1])
    lists = (things, [first, second], kinds, relations, attributes, [boxes], [wrong], [])
    return [caption, path, *map(repr, lists)]


def _boxes(random: np.random.Generator) -> list[list[float]]:
    corners = random.uniform(0, 1, (int(random.integers(1, 4)), 2, 2)) * (640, 480)
    return np.sort(corners, 1).reshape(-1, 4).tolist()


def naive(tsv: Path, rows: int) -> float:
    """Rows per second of one process that takes one row after another."""
    start = time.perf_counter()
    with tsv.open(encoding="utf-8", newline="") as stream:
        for row in islice(csv.DictReader(stream, delimiter="\t"), rows):
            for name in COLUMNS[2:]:
                ast.literal_eval(row[name])
            dhash(decode((tsv.parent / row["filepath"]).read_bytes()).image)
    return rows / (time.perf_counter() - start)


def measure(tsv: Path, out: Path, workers: int) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and the most MiB at once of `macco-prep import`."""
    command = [sys.executable, "-m", "macco.preprocess", "import", str(tsv), "--out", str(out)]
    command += ["--image-root", str(tsv.parent), "--workers", str(workers)]
    before, start, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0.0
    process = psutil.Popen(command)
    while process.poll() is None:
        most = max(most, _resident(process))
        time.sleep(0.3)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(process.returncode)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, most


def _resident(process: psutil.Process) -> float:
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / MB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=110_000)
    parser.add_argument("--images", type=int, default=110_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--naive", type=int, default=1000, help="rows that the naive way is timed on")
    parser.add_argument("--folder", type=Path, help="where to write; what is there already is used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        tsv = folder / TSV
        if not tsv.is_file():
            write(folder, options.rows, options.images)
        with tempfile.TemporaryDirectory(dir=folder) as out:
            seconds, cpu, most = measure(tsv, Path(out) / "store", options.workers)
            again, _, _ = measure(tsv, Path(out) / "store", options.workers)
        rate, one = options.rows / seconds, naive(tsv, options.naive)
        print(f"import: {seconds:.1f} s, {rate:,.0f} rows/s, {cpu:.1f} s of CPU, at most {most:.0f} MiB")
        print(f"the same command again, with nothing to do: {again:.1f} s")
        print(f"naive: {one:,.0f} rows/s, {options.rows / one:.0f} s for all; {rate / one:.1f} times slower")


if __name__ == "__main__":
    main()
