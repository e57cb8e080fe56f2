"""What says that two parsers give the same graphs: also how macco reads what they give."""

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.graph.factual import read_graph
from macco.preprocess.graph.parser import READING
from macco.preprocess.graph.parsers import parser_fingerprint
from macco.preprocess.graph.scene_graphs import RULES, SceneGraphs
from macco.preprocess.graph.show import to_json
from macco.preprocess.graph.triples import concepts_of
from tests.support import DATA

# READING, and what is then made of some captions. If it differs, and the embedded pipeline is the same: raise READING.
KNOWN = (3, "2c68aca37de71ab7")


def test_a_change_of_what_is_read_has_another_number() -> None:
    captions = (DATA / "captions_coco.txt").read_text().splitlines()
    captions += [f"{one.rstrip('. ')}. {other.capitalize()}" for one, other in pairwise(captions)]
    captions += (DATA / "graphs.txt").read_text().splitlines()
    found: list[Any] = [
        to_json(caption, graph)
        for rules in RULES
        for caption, graph in zip(
            captions, SceneGraphs.load("en_caption", rules).parse(captions), strict=True
        )
    ]
    words = "( dog , is , 2 ) , ( dog:1 , v:sit on , sofa ) , ( city bus )"
    caption, graph = "Two dogs sitting on a sofa near another dog in a city bus", read_graph(words, Counter())
    assert graph is not None
    found.append(to_json(caption, concepts_of(graph, caption, Counter())))
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    assert (READING, digest) == KNOWN


def test_a_store_whose_captions_were_read_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    settings = ExtractConfig(detector="none").settings()
    now = settings["parser_fingerprint"]
    assert now == parser_fingerprint("en_caption") == f"{now.partition(',')[0]}, reading {READING}"
    before = settings | {"parser_fingerprint": now.partition(",")[0]}  # as 0.1.0 wrote it
    Store.create(str(tmp_path), before).close()
    Store.open(str(tmp_path)).require_whole()
    with pytest.raises(UserError, match="was made with parser_fingerprint"):
        Store.create(str(tmp_path), settings)
