"""Captions parsed per second of one core, and how many graphs the repairs change.

    OMP_NUM_THREADS=1 python benchmarks/parse.py [FILE] [--parser en_caption] [--captions 5000]

FILE is a COCO captions JSON or text with one caption a line; without it, the captions among the tests' data.
Compared, batch by batch in turn so that a busy machine slows all alike, in seconds of this process's CPU:

    loop   sng_parser.parse, one caption at a time, with the same spaCy pipeline
    pipe   nlp.pipe alone: the parser, without any rules
    graph  the pipe with the repaired rules and exact spans
    rows   the same with Arrow tables made of the concepts: the whole step
"""

import argparse
import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import sng_parser
from spacy.language import Language

from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.tables import Row, ShardTables
from macco.preprocess.graph.language import load_pipeline
from macco.preprocess.graph.scene_graphs import SceneGraphs, readable
from macco.preprocess.sources import SourceImage

TEST_CAPTIONS = Path(__file__).parents[1] / "tests" / "data" / "captions_coco.txt"
BATCH = 640  # captions: what extraction parses together, 128 images with five captions each


def read(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return [annotation["caption"] for annotation in json.loads(text)["annotations"]]
    return text.splitlines()


def tables(graphs: SceneGraphs, captions: list[str]) -> None:
    shard = ShardTables("bench", "00000")
    for number, (caption, graph) in enumerate(zip(captions, graphs.parse(captions), strict=True)):
        source = SourceImage(str(number), (caption,), None, "-")
        shard.add(source, None, [Row(0, number, caption, graph=graph)], {})
    shard.finish()


def ways(nlp: Language) -> dict[str, Callable[[list[str]], object]]:
    """What is compared, each as a function of captions."""
    plain = sng_parser.Parser("spacy", model="blank:en")
    plain.unwrapped.nlp = nlp
    graphs = SceneGraphs(nlp)
    return {
        "loop": lambda captions: [plain.parse(caption) for caption in captions],
        "pipe": lambda captions: deque(nlp.pipe(captions, batch_size=256), maxlen=0),
        "graph": graphs.parse,
        "rows": lambda captions: tables(graphs, captions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", default=TEST_CAPTIONS)
    parser.add_argument("--parser", default=ExtractConfig().parser)
    parser.add_argument("--captions", type=int, default=5000)
    options = parser.parse_args()
    captions = list(dict.fromkeys(map(readable, read(options.file))))[: options.captions]
    nlp = load_pipeline(options.parser)
    compared = ways(nlp)
    for way in compared.values():
        way(captions[:100])  # warm up
    seconds = dict.fromkeys(compared, 0.0)
    for first in range(0, len(captions), BATCH):
        batch = captions[first : first + BATCH]
        for name, way in compared.items():
            start = time.process_time()
            way(batch)
            seconds[name] += time.process_time() - start
    print(f"{len(captions)} captions, parser {options.parser}")
    for name, spent in seconds.items():
        print(
            f"{name:6}{len(captions) / spent:8.0f} captions/s{1000 * spent / len(captions):8.3f} ms"
            f"{spent / seconds['pipe']:7.2f} x pipe{seconds['loop'] / spent:7.2f} times as fast as the loop"
        )
    original, repaired = (SceneGraphs(nlp, rules).parse(captions) for rules in ("original", "repaired"))
    changed = sum(a != b for a, b in zip(original, repaired, strict=True))
    print(f"the repairs change the graph of {changed / len(captions):.1%} of the captions")


if __name__ == "__main__":
    main()
