"""Parsers besides spaCy: graphs of a file, FACTUAL's T5, another package's."""

import functools
import json
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.query import query
from macco.pipeline.schema import OBJECT, Concept, Span, Status
from macco.pipeline.store import Store
from macco.preprocess import plugins
from macco.preprocess.cli import app
from macco.preprocess.graph import factual
from macco.preprocess.graph.factual import CUT, NO_FACT, read_graph
from macco.preprocess.graph.graph_file import AGAIN, GRAPHS, MISPLACED, NAMES_ALONE, NO_GRAPH, UNREADABLE
from macco.preprocess.graph.parser import Parsed
from macco.preprocess.graph.parsers import check_parser, load_parser, parser_fingerprint
from macco.preprocess.graph.refusal import CaptionError
from macco.preprocess.graph.scene_graphs import SceneGraphs
from macco.preprocess.graph.show import to_json
from macco.preprocess.graph.triples import ABSENT, AMBIGUOUS, concepts_of
from tests.support.tiny_t5 import write_t5


@functools.cache
def graphs() -> SceneGraphs:
    return SceneGraphs.load("en_caption", "repaired")


CAPTION = "Two red dogs are sitting on a sofa next to a red lamp"


def extract(corpus: Path, out: Path, *more: object, code: int = 0) -> Store:
    given = [
        "extract",
        "--shards",
        f"{corpus}/*.tar",
        "--out",
        out,
        "--workers",
        0,
        "--detector",
        "none",
        *more,
    ]
    done = CliRunner().invoke(app, [str(each) for each in given], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return Store.open(str(out))


def write(path: Path, *graphs: Any) -> str:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in graphs))
    return f"graphs:{path}"


def shown(caption: str, concepts: list[Concept]) -> list[tuple[Any, ...]]:
    return [
        (c.kind, caption[c.spans[0].start : c.spans[0].end], c.phrase, c.subject, c.object, c.owner)
        for c in concepts
    ]


EXPECTED = [
    ("object", "dogs", "red dogs", None, None, None),
    ("object", "sofa", "sofa", None, None, None),
    ("object", "lamp", "red lamp", None, None, None),
    ("attribute", "Two", "red dogs", None, None, 0),
    ("attribute", "red", "red dogs", None, None, 0),
    ("attribute", "red", "red lamp", None, None, 2),
    ("relation", "sitting on", None, 0, 1, None),
    ("relation", "next to", None, 1, 2, None),
]


def test_graphs_of_words_are_found_in_their_caption() -> None:
    written = (
        "( dog , is , 2 ) , ( dog , is , red ) , ( dog , sit on , sofa ) , ( sofa , next to , lamp ) , "
        "( lamp , is , red )"
    )
    counts: Counter[str] = Counter()
    graph = read_graph(written, counts)
    assert graph is not None
    concepts = concepts_of(graph, CAPTION, counts)
    assert shown(CAPTION, concepts) == EXPECTED
    assert concepts[3].spans[0].start == 0
    assert concepts[5].spans[0].start > concepts[2].spans[0].start - 5
    assert not +counts


@pytest.mark.parametrize(
    "written", ["", "dog", "( dog , red )", "( , is , )", "( d , e", "( a , b , c , d )"]
)
def test_what_is_no_graph_is_none(written: str) -> None:
    assert read_graph(written, Counter()) is None


@pytest.mark.parametrize(
    "written",
    ["( dog , is , red ) and more", "( dog , is , red ) , ( dog , on", "(dog,is,red),( dog , red )"],
)
def test_facts_that_are_none_are_counted_beside_those_that_are(written: str) -> None:
    counts: Counter[str] = Counter()
    graph = read_graph(written, counts)
    assert graph is not None
    assert [(one.text, one.attributes) for one in graph.objects] == [("dog", [("red", None)])]
    assert counts == {NO_FACT: 1}


def test_the_forms_that_the_published_checkpoints_write() -> None:
    """Of FACTUAL's data: an object alone, a fact twice, and in the "-id" checkpoints verbs, passives and numbers."""
    counts: Counter[str] = Counter()
    alone = read_graph("( city bus )", counts)
    assert alone is not None
    assert shown("a city bus", concepts_of(alone, "a city bus", counts)) == [
        ("object", "city bus", "city bus", None, None, None)
    ]
    caption = "A monkey sitting next to another monkey in a parked car"
    graph = read_graph(
        "( monkey , v:sit next to , monkey:1 ) , ( monkey, v:sit next to, monkey:1 ), ( monkey:1 , in , car ) , "
        "( car , pv:park , sideways )",
        counts,
    )
    assert graph is not None
    found = concepts_of(graph, caption, counts)
    assert [c.lemma for c in found if c.kind == "relation"] == ["sit next to", "in", "park"]
    assert [(c.spans[0].start, c.subject, c.object) for c in found if c.kind == "relation"] == [
        (9, 0, 1), (40, 1, 2), (45, 2, None)
    ]  # fmt: skip
    assert +counts == {AMBIGUOUS: 1, ABSENT: 1}


def test_two_of_one_name_are_two() -> None:
    graph = read_graph("( dog , near , dog:1 ) , ( dog:1 , is , black )", Counter())
    assert graph is not None
    caption = "a dog near a black dog"
    found = concepts_of(graph, caption, Counter())
    assert [c.spans[0].start for c in found if c.kind == OBJECT] == [2, 19]


def test_a_file_of_graphs_by_caption_and_by_sample(tmp_path: Path) -> None:
    listed = {
        "caption": CAPTION,
        "objects": [{"text": "dogs", "start": 8, "end": 12}, "sofa", "lamp"],
        "attributes": [["dogs", "Two"], {"object": 0, "text": "red", "start": 4, "end": 7}, [2, "red"]],
        "relations": [["dogs", "sitting on", "sofa"], {"subject": 1, "text": "next to", "object": "lamp"}],
    }
    other = {"sample_id": "d/s/k/0", "objects": ["boat", "dog"], "relations": [["boat", "on", "lake"]]}
    wrong = [
        {"caption": "x", "objects": [3]},
        {"caption": "y", "objects": [{"text": "y", "start": 0, "end": 9}]},
    ]
    spec = write(
        tmp_path / "g.jsonl", listed, "no JSON", other, *wrong, {"caption": "z"}, listed | {"objects": []}
    )
    check_parser(spec)
    captions = [CAPTION, "a boat and a boat", "x", "y", "z"]
    parsed = load_parser(spec).parse(captions, ["-", "d/s/k/0", "-", "-", "-"])
    assert shown(CAPTION, parsed.graphs[0]) == EXPECTED
    assert shown(captions[1], parsed.graphs[1]) == [("object", "boat", "boat", None, None, None)]
    assert shown("y", parsed.graphs[3]) == [("object", "y", "y", None, None, None)]
    assert [parsed.graphs[2], parsed.graphs[4]] == [[], []]
    assert parsed.counts == {
        AMBIGUOUS: 1,
        ABSENT: 3,
        "captions that the file of graphs does not have": 1,
        "graphs of the file that are none": 1,
        MISPLACED: 1,
    }


def test_what_parse_prints_comes_back_as_it_was(tmp_path: Path) -> None:
    captions = [CAPTION, "A man picks the ball up. It is not a red ball.", "no dog"]
    own = graphs().parse(captions)
    lines = [to_json(*one) for one in zip(captions, own, strict=True)]
    parsed = load_parser(write(tmp_path / "g.jsonl", *lines)).parse(captions, ["-"] * 3)
    assert [shown(*one) for one in zip(captions, parsed.graphs, strict=True)] == [
        shown(*one) for one in zip(captions, own, strict=True)
    ]
    assert [[c.denied for c in graph] for graph in parsed.graphs] == [
        [c.denied for c in graph] for graph in own
    ]


def test_extraction_takes_graphs_of_a_file(corpus: Path, store: Store, tmp_path: Path) -> None:
    captions = [row["caption"] for row in query(store, "SELECT DISTINCT caption FROM samples").to_pylist()]
    lines = [to_json(*one) for one in zip(captions, graphs().parse(captions), strict=True)]
    spec = write(tmp_path / "g.jsonl", *lines[1:])
    made = extract(corpus, tmp_path / "store", "--graphs", tmp_path / "g.jsonl")
    assert made.description()["settings"]["parser"] == spec
    assert made.description()["settings"]["parser_fingerprint"] == parser_fingerprint(spec)
    same = 'SELECT sample_id, kind, text, start, "end", lemma, phrase, denied FROM concepts'
    had = query(
        store, f"{same} JOIN samples USING (sample_id) WHERE caption <> $${captions[0]}$$ ORDER BY ALL"
    )
    assert query(made, f"{same} ORDER BY ALL").to_pylist() == had.to_pylist() != []
    counted = sum((Counter(record["counts"]) for record in made.records().values()), Counter())
    assert counted["captions that the file of graphs does not have"] >= 1
    with pytest.raises(UserError, match="no such file"):
        check_parser(f"graphs:{tmp_path}/no.jsonl")
    with pytest.raises(UserError, match="none of the first lines"):
        check_parser(write(tmp_path / "x.jsonl", "[]", "x"))


def test_a_file_of_graphs_is_tried_before_an_extraction(tmp_path: Path) -> None:
    """What `import-graphs` counts is what an extraction of the same captions counts."""
    spans = {
        "caption": CAPTION,
        "objects": [{"text": "dogs", "start": 8, "end": 12}],
        "attributes": [[0, "red"]],
    }
    words = {
        "caption": "a boat and a boat",
        "objects": ["boat", "dog"],
        "relations": [["boat", "on", "lake"]],
    }
    named = {"sample_id": "d/s/k/0", "objects": ["boat"]}
    wrong = {"caption": "x", "objects": [3]}
    spec = write(tmp_path / "g.jsonl", spans, "no JSON", words, named, wrong, words | {"objects": []}, "")
    done = CliRunner().invoke(app, ["import-graphs", str(tmp_path / "g.jsonl"), "--json"])
    assert done.exit_code == 0, done.output
    counted = json.loads(done.output)
    assert {name: n for name, n in counted.items() if n} == {
        GRAPHS: 5,
        NO_GRAPH: 1,
        NAMES_ALONE: 1,
        AGAIN: 1,
        UNREADABLE: 1,
        "objects": 2,
        "attributes": 1,
        AMBIGUOUS: 1,
        ABSENT: 3,
    }
    parsed = load_parser(spec).parse([CAPTION, words["caption"], "x"], [""] * 3)
    assert dict(parsed.counts) == {name: counted[name] for name in (AMBIGUOUS, ABSENT, UNREADABLE)}
    graphs = [graph for graph in parsed.graphs if not isinstance(graph, CaptionError)]
    assert sum(len(graph) for graph in graphs) == counted["objects"] + counted["attributes"]
    with pytest.raises(UserError, match="no such file"):
        CliRunner().invoke(app, ["import-graphs", str(tmp_path / "none.jsonl")], catch_exceptions=False)
    (tmp_path / "x.jsonl").write_text("[]\n")
    done = CliRunner().invoke(
        app, ["import-graphs", str(tmp_path / "x.jsonl"), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 1
    assert {name: n for name, n in json.loads(done.output).items() if n} == {NO_GRAPH: 1}


def test_a_t5_that_writes_no_graph_is_a_counted_row(corpus: Path, tmp_path: Path) -> None:
    spec = f"factual:{write_t5(tmp_path / 't5', layers=2)}"
    check_parser(spec)
    assert parser_fingerprint(spec).startswith("factual:")
    parsed = load_parser(spec).parse(["a dog. A cat.", "a dog. A cat.", "a dog " * 300], [""] * 3)
    assert parsed.counts == {CUT: 1}
    graph, same, _ = parsed.graphs
    assert isinstance(graph, CaptionError)
    assert graph == same
    assert graph.status == Status.PARSING_FAILED
    made = extract(corpus, tmp_path / "store", "--parser", spec, code=1)
    (row,) = query(made, "SELECT status, count(*) AS n FROM samples GROUP BY 1").to_pylist()
    assert row["status"] == "parsing_failed"
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        check_parser("factual:nobody/nothing")


def test_what_a_t5_writes_becomes_concepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_parser(f"factual:{write_t5(tmp_path / 't5', layers=2)}")
    said = {
        "a red dog.": "( dog , is , red )",
        "Two cats sit on it.": "( cats , is , 2 ) , ( cats , sit on , it )",
    }
    monkeypatch.setattr(factual.Factual, "_write", lambda self, texts, counts: (said[text] for text in texts))
    caption = "a red dog. Two cats sit on it."
    (graph,) = made.parse([caption], [""]).graphs
    assert shown(caption, graph) == [
        ("object", "dog", "red dog", None, None, None),
        ("object", "cats", "cats", None, None, None),
        ("object", "it", "it", None, None, None),
        ("attribute", "red", "red dog", None, None, 0),
        ("attribute", "Two", "cats", None, None, 1),
        ("relation", "sit on", None, 1, 2, None),
    ]


class First:
    """Another package's parser: the first word of a caption is an object."""

    def parse(self, captions: list[str], names: list[str]) -> Parsed:
        ends = [len(caption.split()[0]) for caption in captions]
        one = [[Concept(OBJECT, (Span(0, n),), "x", Span(0, n), "NOUN", "x")] for n in ends]
        return Parsed(one, {"first words": len(captions)})


class FirstBackend:
    def check(self, name: str) -> None:
        pass

    def fingerprint(self, name: str) -> str:
        return "first"

    def load(self, name: str, rules: str) -> First:
        return First()


def test_another_package_adds_a_parser(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("first", f"{__name__}:FirstBackend", plugins.PARSERS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    made = extract(corpus, tmp_path / "store", "--parser", "first")
    assert made.description()["settings"]["parser_fingerprint"] == "first"
    rows = query(made, "SELECT DISTINCT kind, lemma, start FROM concepts").to_pylist()
    assert rows == [{"kind": "object", "lemma": "x", "start": 0}]
    assert sum(record["counts"]["first words"] for record in made.records().values()) > 20
