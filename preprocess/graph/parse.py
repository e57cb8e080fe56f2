"""Captions to printed scene graphs, for `macco-prep parse`."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

from macco.preprocess.graph.refusal import CaptionError, caption_status, text_of
from macco.preprocess.graph.show import render, to_json

BATCH = 256  # captions parsed together


def parse_lines(captions: Iterable[str | bytes], *, parser: str, rules: str, as_json: bool) -> Iterator[str]:
    """Yield the graph of each caption as text; lines in = graphs out, a caption that cannot be parsed says why.

    Bytes (lines of standard input) must be UTF-8; a trailing line break is not part of the caption.
    """
    from macco.preprocess.graph.scene_graphs import SceneGraphs

    scenes = SceneGraphs.load(parser, rules)
    source = iter(captions)
    while batch := [_text(line) for line in islice(source, BATCH)]:
        refused = [text if isinstance(text, CaptionError) else caption_status(text) for text in batch]
        texts = ["" if isinstance(text, CaptionError) else text for text in batch]
        graphs = iter(scenes.parse([text for text, bad in zip(texts, refused, strict=True) if not bad]))
        for text, bad in zip(texts, refused, strict=True):
            if as_json:
                value = to_json(text, [] if bad else next(graphs))
                yield json.dumps(value | (bad._asdict() if bad else {}), ensure_ascii=False)
            else:
                yield f"{text}\n  {bad.status}: {bad.error}\n" if bad else render(text, next(graphs))


def _text(line: str | bytes) -> str | CaptionError:
    return line if isinstance(line, str) else text_of(line.rstrip(b"\r\n"))
