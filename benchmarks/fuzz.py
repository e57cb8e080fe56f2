"""Damaged input at volume: every case is taken, refused in a line, or a row with a status; never any other exception.

    python -m benchmarks.fuzz [--cases 10000] [--seed 0] KIND...

Kinds: captions, pictures, tars, tables, documents, manifests, stores, runs. Prints cases, those that were refused or
held no good row, exceptions (the first of each sort with its seed), the longest case in seconds, and by how much the
peak memory grew. A case that takes longer than LIMIT is an exception, too.
"""

import argparse
import faulthandler
import json
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.damage import changed_value, mutated
from benchmarks.fuzz_folders import runs, stores, templates
from macco.pipeline.errors import UserError, is_failure
from macco.pipeline.pictures import ImageError, decode
from macco.pipeline.schema import OK
from macco.preprocess.graph.language import EMBEDDED
from macco.preprocess.graph.refusal import caption_status, text_of
from macco.preprocess.graph.scene_graphs import SceneGraphs
from macco.preprocess.sources import plan
from macco.preprocess.sources.manifest import FOLDER, load_manifest

ROOT = Path(__file__).parents[1]
LIMIT = 120  # seconds of a case, be the machine as busy as it may
MEMORY = 8 * 2**30  # bytes of data that this process may have: what asks for more gets none

Try = Callable[[Random, Path], bool]  # one case; whether anything good was in it

CAPTION = "A red dog, which is not small, sits on a sofa next to two cats and each other's toys."


def captions(random: Random, folder: Path) -> bool:
    text = text_of(mutated(CAPTION.encode(), random))
    if not isinstance(text, str) or caption_status(text):
        return False
    for concept in GRAPHS[0].parse([text])[0]:
        for span in concept.spans:
            assert 0 <= span.start < span.end <= len(text)
    return True


def _picture(random: Random, form: str) -> bytes:
    out = BytesIO()
    Image.effect_noise((32, 24), 50).convert("RGB").save(out, form)
    return out.getvalue()


def pictures(random: Random, folder: Path) -> bool:
    try:
        decode(mutated(_picture(random, random.choice(("JPEG", "PNG", "WEBP"))), random), max_side=64)
    except ImageError:
        return False
    return True


def _good(file: Path, **given: str) -> bool:
    return any(
        row[1] == OK
        for shard in plan([str(file)], **given)
        for source in shard.read()
        for row in source.rows()
    )


def tars(random: Random, folder: Path) -> bool:
    data, file = BytesIO(), folder / "0.tar"
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in (
            ("a.jpg", b"x"),
            ("a.json", json.dumps({"caption": CAPTION}).encode()),
            ("b.txt", b"c"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    file.write_bytes(mutated(data.getvalue()[:4608], random))
    return _good(file)


def tables(random: Random, folder: Path) -> bool:
    ending, data = random.choice(("parquet", "csv", "tsv")), BytesIO()
    table = pa.table({"filepath": ["a.jpg", "b.jpg"], "title": [CAPTION, "A cat"]})
    if ending == "parquet":
        pq.write_table(table.rename_columns(["image", "caption"]), data)
    else:
        pc.write_csv(table, data, pc.WriteOptions(delimiter="," if ending == "csv" else "\t"))
    file = folder / f"0.{ending}"
    for name in "ab":
        (folder / f"{name}.jpg").touch()
    file.write_bytes(mutated(data.getvalue(), random))
    return _good(file)


def documents(random: Random, folder: Path) -> bool:
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("ab")]
    written: dict[str, object] = {
        "coco": {
            "images": images,
            "annotations": [{"id": n, "image_id": n, "caption": CAPTION} for n in (0, 1)],
        },
        "karpathy": {
            "images": [
                {
                    "filepath": ".",
                    "filename": f"{name}.jpg",
                    "split": "train",
                    "sentences": [{"raw": CAPTION}],
                }
                for name in "ab"
            ]
        },
        "json": [{"image": f"{name}.jpg", "caption": CAPTION} for name in "ab"],
    }
    form = random.choice((*written, "jsonl"))
    lines = "\n".join(json.dumps(one) for one in written["json"])  # type: ignore[attr-defined]
    file = folder / ("0.jsonl" if form == "jsonl" else "0.json")
    for name in "ab":
        (folder / f"{name}.jpg").touch()
    file.write_text(lines if form == "jsonl" else json.dumps(written[form]))
    if random.random() < 0.4:
        changed_value(file, random, [file])
    else:
        file.write_bytes(mutated(file.read_bytes(), random))
    return _good(file, format=random.choice(("auto", form)))


def manifests(random: Random, folder: Path) -> bool:
    file = folder / "0.yaml"
    file.write_bytes(mutated(random.choice(sorted(FOLDER.glob("*.yaml"))).read_bytes(), random))
    load_manifest(str(file))
    return True


KINDS: dict[str, Try] = {
    one.__name__: one for one in (captions, pictures, tars, tables, documents, manifests, stores, runs)
}
GRAPHS: list[SceneGraphs] = []


@dataclass
class Tally:
    """What became of a kind's cases."""

    cases: int = 0
    refused: int = 0
    longest: float = 0.0  # seconds
    grown: float = 0.0  # MB of peak memory, since the hundredth case
    exceptions: Counter[str] = field(default_factory=Counter)


def _sort(error: BaseException) -> str:
    """What exceptions of one cause have in common."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
    where = ours[-1]
    said = " ".join(str(error).split())[-200:]
    return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {said}"


class HungError(BaseException):
    """A case took too long; not an Exception, or what is tried might take it for one of its own."""


def _hung(number: int, frame: object) -> None:
    raise HungError(f"no end after {LIMIT} s")


def fuzz(kind: str, cases: int, seed: int, folder: Path) -> Tally:
    """Try cases of a kind; the same seed makes the same ones."""
    if kind == "captions" and not GRAPHS:
        GRAPHS.append(SceneGraphs.load(EMBEDDED, "repaired"))
    if kind in ("stores", "runs"):
        templates(folder)
    tally, before = Tally(), 0
    signal.signal(signal.SIGALRM, _hung)
    for number in range(cases):
        begun = time.perf_counter()
        signal.alarm(LIMIT)
        faulthandler.dump_traceback_later(2 * LIMIT, exit=True)  # where no Python runs any more
        try:
            tally.refused += not KINDS[kind](Random(f"{kind} {seed} {number}"), folder)
        except UserError:
            tally.refused += 1
        except BaseException as error:
            if not (is_failure(error) or isinstance(error, HungError)):
                raise
            sort = _sort(error)
            if sort not in tally.exceptions:
                print(f"{kind} {seed} {number}: {sort}", flush=True)
            tally.exceptions[sort] += 1
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        tally.cases += 1
        tally.longest = max(tally.longest, time.perf_counter() - begun)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = before if number > 100 else peak
        tally.grown = (peak - before) / 1024
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds or KINDS:
            found = fuzz(kind, options.cases, options.seed, Path(folder))
            failed += found.exceptions.total()
            print(
                f"{kind}: {found.cases} cases, {found.refused} refused, {found.exceptions.total()} exceptions, "
                f"longest {found.longest:.2f} s, {found.grown:.0f} MB more at the peak",
                flush=True,
            )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
