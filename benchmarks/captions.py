"""Parse a file of captions and check what must hold for each: python benchmarks/captions.py FILE

FILE is a COCO captions JSON, or text with one caption a line. Exit code 1 if a span is not its text, a
reference leads nowhere, or a row is missing.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from macco.pipeline.schema import OBJECT, OK
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.tables import Row, ShardTables
from macco.preprocess.graph.refusal import caption_status
from macco.preprocess.graph.scene_graphs import SceneGraphs
from macco.preprocess.sources import SourceImage


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--parser", default=ExtractConfig().parser)
    parser.add_argument("--rules", default="repaired")
    options = parser.parse_args()
    text = options.file.read_text(encoding="utf-8")
    if options.file.suffix == ".json":
        captions = [annotation["caption"] for annotation in json.loads(text)["annotations"]]
    else:
        captions = text.splitlines()
    scenes = SceneGraphs.load(options.parser, options.rules)
    start = time.perf_counter()
    statuses = [caption_status(caption) for caption in captions]
    graphs = iter(scenes.parse([c for c, bad in zip(captions, statuses, strict=True) if bad is None]))
    tables = ShardTables("captions", options.file.stem)
    for number, (caption, bad) in enumerate(zip(captions, statuses, strict=True)):
        row = Row(0, number, caption, *(bad or (OK, None)))
        if not bad:
            row.graph = next(graphs)
        tables.add(SourceImage(f"{number:09}", (caption,), None, str(options.file)), None, [row], {})
    rows = tables.finish()
    seconds = time.perf_counter() - start
    wrong = 0
    text_of = dict(zip(rows["samples"]["sample_id"].to_pylist(), captions, strict=True))
    objects = {c["concept_id"] for c in rows["concepts"].to_pylist() if c["kind"] == OBJECT}
    kinds: Counter[str] = Counter()
    for concept in rows["concepts"].to_pylist():
        kinds[concept["kind"]] += 1
        ends = {concept[name] for name in ("owner_id", "subject_id", "object_id")} - {None}
        if (
            text_of[concept["sample_id"]][concept["start"] : concept["end"]] != concept["text"]
            or not ends <= objects
        ):
            wrong += 1
            print("wrong:", text_of[concept["sample_id"]], concept, file=sys.stderr)
    print(f"{len(captions)} captions in, {rows['samples'].num_rows} rows out in {seconds:.1f} s", end=", ")
    print(
        f"{len(captions) / seconds:.0f} captions/s; statuses {dict(Counter(rows['samples']['status'].to_pylist()))}"
    )
    print(f"spans {dict(kinds)}, wrong: {wrong}")
    sys.exit(bool(wrong or rows["samples"].num_rows != len(captions)))


if __name__ == "__main__":
    main()
