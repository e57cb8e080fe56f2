"""Captions to printed scene graphs, for `macco-prep parse`."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

from macco.preprocess.config import ExtractConfig
from macco.preprocess.graph.refusal import caption_status
from macco.preprocess.graph.show import render, to_json

BATCH = 256  # captions parsed together


def parse_lines(captions: Iterable[str | bytes], *, parser: str, rules: str, as_json: bool) -> Iterator[str]:
    """Yield the graph of each caption as text; lines in = graphs out, a caption that cannot be parsed says why.

    Bytes (lines of standard input) must be UTF-8; a trailing line break is not part of the caption.
    """
    from macco.preprocess.extraction.shard import parse_here

    parse = parse_here(ExtractConfig(parser=parser, rules=rules))
    source = iter(captions)
    while batch := [_text(line) for line in islice(source, BATCH)]:
        texts = [text for text in batch if text is not None and not caption_status(text)]
        graphs = iter(parse(texts)())
        for text in batch:
            bad = ("bad_encoding", "the line is not UTF-8") if text is None else caption_status(text)
            if as_json:
                value = to_json(text or "", [] if bad else next(graphs))
                yield json.dumps(
                    value | ({"status": bad[0], "error": bad[1]} if bad else {}), ensure_ascii=False
                )
            else:
                yield f"{text or ''}\n  {bad[0]}: {bad[1]}\n" if bad else render(text or "", next(graphs))


def _text(line: str | bytes) -> str | None:
    if isinstance(line, str):
        return line
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return None
