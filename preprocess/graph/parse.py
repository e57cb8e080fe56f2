"""Captions to printed scene graphs, for `macco-prep parse`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from macco.pipeline.errors import UserError
from macco.pipeline.schema import Concept
from macco.preprocess.graph.language import EMBEDDED
from macco.preprocess.graph.parser import held
from macco.preprocess.graph.parsers import load_parser
from macco.preprocess.graph.refusal import CaptionError, caption_status, text_of
from macco.preprocess.graph.show import render, to_json

BATCH = 256  # captions parsed together


def parse(captions: Sequence[str], *, parser: str = EMBEDDED, rules: str = "repaired") -> list[list[Concept]]:
    """The concepts of each caption: objects, attributes and relations with their characters.

    parser: the embedded pipeline, or any installed spaCy pipeline; rules: repaired, or SceneGraphParser's original
    ones. Loads the pipeline at each call: give many captions at once. A caption that cannot be parsed has none.
    """
    if isinstance(captions, str):
        raise UserError("parse takes a list of captions, not one: parse([caption])")
    readable = [caption if caption_status(caption) is None else "" for caption in captions]
    parsed = held(readable, load_parser(parser, rules).parse(readable, [""] * len(readable)))
    return [[] if isinstance(graph, CaptionError) else graph for graph in parsed.graphs]


def parse_lines(captions: Iterable[str | bytes], *, parser: str, rules: str, as_json: bool) -> Iterator[str]:
    """Yield the graph of each caption as text; lines in = graphs out, a caption that cannot be parsed says why.

    Bytes (lines of standard input) must be UTF-8; a trailing line break is not part of the caption.
    """
    scenes = load_parser(parser, rules)
    source = iter(captions)
    while batch := [_text(line) for line in islice(source, BATCH)]:
        refused = [text if isinstance(text, CaptionError) else caption_status(text) for text in batch]
        texts = ["" if isinstance(text, CaptionError) else text for text in batch]
        good = [text for text, bad in zip(texts, refused, strict=True) if not bad]
        graphs = iter(held(good, scenes.parse(good, [""] * len(good))).graphs)
        for text, bad in zip(texts, refused, strict=True):
            graph = bad or next(graphs)
            bad, graph = (graph, []) if isinstance(graph, CaptionError) else (None, graph)
            if as_json:
                value = to_json(text, graph)
                yield json.dumps(value | (bad._asdict() if bad else {}), ensure_ascii=False)
            else:
                yield f"{text}\n  {bad.status}: {bad.error}\n" if bad else render(text, graph)


def _text(line: str | bytes) -> str | CaptionError:
    return line if isinstance(line, str) else text_of(line.rstrip(b"\r\n"))
