"""Files of scene graphs as people write them: what is taken, and what is counted instead."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from macco.pipeline.query import query
from macco.pipeline.schema import Concept
from macco.preprocess.cli import app
from macco.preprocess.graph.graph_file import (
    AGAIN,
    GRAPHS,
    MISPLACED,
    NAMED_TWICE,
    NAMES_ALONE,
    NO_GRAPH,
    UNREADABLE,
    survey,
)  # fmt: skip
from macco.preprocess.graph.parsers import load_parser
from macco.preprocess.graph.triples import ABSENT, AMBIGUOUS, SHARED
from tests.preprocess.graph.test_parsers import extract, write

ROBOT = "The robot is purple and the cherry is red."
DOGS = "A dog near a dog"


def counted(path: Path, *graphs: Any) -> dict[str, int]:
    """What `import-graphs` says of a file, zeros left out; an extraction of the same captions counts the same."""
    spec = write(path, *graphs)
    done = CliRunner().invoke(app, ["import-graphs", str(path), "--json"])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    said: dict[str, int] = json.loads(done.output)
    assert {
        GRAPHS,
        NO_GRAPH,
        NAMES_ALONE,
        AGAIN,
        UNREADABLE,
        "objects",
        "attributes",
        "relations",
    } <= said.keys()
    assert {AMBIGUOUS, ABSENT, SHARED, MISPLACED, NAMED_TWICE} <= said.keys()
    assert done.exit_code == (0 if said[GRAPHS] and said["objects"] + said[NAMES_ALONE] else 1)
    captions = list(
        dict.fromkeys(one["caption"] for one in graphs if isinstance(one, dict) and "caption" in one)
    )
    counts = load_parser(spec).parse(captions, [""] * len(captions)).counts
    for name in (AMBIGUOUS, ABSENT, SHARED, MISPLACED, NAMED_TWICE, UNREADABLE):
        assert counts.get(name, 0) == said[name]
    return {name: n for name, n in said.items() if n}


def graph(caption: str, objects: Any, **more: Any) -> dict[str, Any]:
    return {"caption": caption, "objects": objects, **more}


FILES: dict[str, tuple[list[Any], dict[str, int]]] = {
    "words": ([graph(ROBOT, ["robot"])], {GRAPHS: 1, "objects": 1}),
    "two graphs": ([graph(ROBOT, ["robot"]), graph(DOGS, ["cat"])], {GRAPHS: 2, "objects": 1, ABSENT: 1}),
    "no object": ([graph(ROBOT, [])], {GRAPHS: 1}),
    "nothing": ([], {}),
    "blank lines": (["", "  "], {}),
    "no JSON": (["{", "x", graph(ROBOT, ["robot"])], {GRAPHS: 1, NO_GRAPH: 2, "objects": 1}),
    "deep": (["[" * 100_000], {NO_GRAPH: 1}),
    "bytes": (["\x00"], {NO_GRAPH: 1}),
    "a mark of the byte order": (
        ["\ufeff" + json.dumps(graph(ROBOT, ["robot"]))], {GRAPHS: 1, "objects": 1}
    ),
    "names alone": ([{"sample_id": "d/s/k/0", "objects": ["robot"]}], {GRAPHS: 1, NAMES_ALONE: 1}),
    "twice": ([graph(ROBOT, ["robot"])] * 2, {GRAPHS: 2, AGAIN: 1, "objects": 1}),
    "all kinds": (
        [graph(ROBOT, ["robot", "cherry"], attributes=[["robot", "purple"]], relations=[["robot", "and", "cherry"]])],
        {GRAPHS: 1, "objects": 2, "attributes": 1, "relations": 1},
    ),
    "a string of objects": ([graph(ROBOT, "robot cherry")], {GRAPHS: 1, UNREADABLE: 1}),
    "a number of objects": ([graph(ROBOT, 3)], {GRAPHS: 1, UNREADABLE: 1}),
    "objects by name": ([graph(ROBOT, {"robot": 1})], {GRAPHS: 1, UNREADABLE: 1}),
    "an object of a number": ([graph(ROBOT, [3])], {GRAPHS: 1, UNREADABLE: 1}),
    "an object without words": ([graph(ROBOT, [{"name": "robot"}])], {GRAPHS: 1, UNREADABLE: 1}),
    "null": ([graph(ROBOT, None)], {GRAPHS: 1, UNREADABLE: 1}),
    "a string of attributes": ([graph(ROBOT, ["robot"], attributes="ab")], {GRAPHS: 1, UNREADABLE: 1}),
    "an attribute of letters": ([graph(ROBOT, ["robot"], attributes=["ab"])], {GRAPHS: 1, UNREADABLE: 1}),
    "a number as attribute": ([graph(ROBOT, ["robot"], attributes=[[0, 3]])], {GRAPHS: 1, UNREADABLE: 1}),
    "true as an object's place": ([graph(ROBOT, ["robot"], attributes=[[True, "red"]])], {GRAPHS: 1, UNREADABLE: 1}),
    "relations of words": ([graph(ROBOT, ["robot"], relations=["abc"])], {GRAPHS: 1, UNREADABLE: 1}),
    "a relation of two": ([graph(ROBOT, ["robot"], relations=[["robot", "is"]])], {GRAPHS: 1, UNREADABLE: 1}),
    "no such object": ([graph(ROBOT, ["robot"], relations=[[0, "is", 7]])], {GRAPHS: 1, UNREADABLE: 1}),
    "own form, no list": ([{"caption": ROBOT, "concepts": {}}], {GRAPHS: 1, UNREADABLE: 1}),
    "own form, words": ([{"caption": ROBOT, "concepts": ["robot"]}], {GRAPHS: 1, UNREADABLE: 1}),
    "a span that is none": (
        [graph(ROBOT, [{"text": "robot", "start": 4, "end": 9000}])], {GRAPHS: 1, "objects": 1, MISPLACED: 1}
    ),
    "a span of words": (
        [graph(ROBOT, [{"text": "robot", "start": "4", "end": "9"}])], {GRAPHS: 1, UNREADABLE: 1}
    ),
    "two dogs, named once": (
        [graph(DOGS, [], relations=[["dog", "near", "dog"]])],
        {GRAPHS: 1, "objects": 2, "relations": 1, AMBIGUOUS: 1},
    ),
    "two dogs, listed": (
        [graph(DOGS, ["dog", "dog"], relations=[["dog", "near", "dog"]])],
        {GRAPHS: 1, "objects": 2, "relations": 1, AMBIGUOUS: 1, NAMED_TWICE: 2},
    ),
    "three dogs of two": ([graph(DOGS, ["dog"] * 3)], {GRAPHS: 1, "objects": 3, AMBIGUOUS: 1, SHARED: 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_what_import_graphs_says_of_a_file(case: str, tmp_path: Path) -> None:
    graphs, expected = FILES[case]
    assert counted(tmp_path / "g.jsonl", *graphs) == expected


def spans(path: Path, one: dict[str, Any]) -> list[tuple[str, str, str]]:
    (found,) = load_parser(write(path, one)).parse([one["caption"]], [""]).graphs
    assert isinstance(found, list)
    return [(c.kind, one["caption"][slice(*c.spans[0])], c.lemma) for c in found]


def test_a_span_that_is_not_its_words_is_not_taken(tmp_path: Path) -> None:
    wrong = graph(
        ROBOT,
        [{"text": "cherry", "start": 0, "end": 9}],
        attributes=[{"object": 0, "text": "red", "start": 4, "end": 7}],
        relations=[{"subject": 0, "text": "is", "start": 0, "end": 3, "object": "robot"}],
    )
    assert spans(tmp_path / "g.jsonl", wrong) == [
        ("object", "cherry", "cherry"),
        ("object", "robot", "robot"),
        ("attribute", "red", "red"),
        ("relation", "is", "is"),
    ]
    assert counted(tmp_path / "g.jsonl", wrong) == {
        GRAPHS: 1, "objects": 2, "attributes": 1, "relations": 1, MISPLACED: 3, AMBIGUOUS: 1,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["The Robot", "the  robot", " the robot "])
def test_case_and_blanks_of_a_span_are_no_other_words(text: str, tmp_path: Path) -> None:
    one = graph(ROBOT, [{"text": text, "start": 0, "end": 9}])
    assert counted(tmp_path / "g.jsonl", one) == {GRAPHS: 1, "objects": 1}
    assert spans(tmp_path / "g.jsonl", one) == [("object", "The robot", " ".join(text.lower().split()))]


def test_offsets_in_bytes_are_found_anew(tmp_path: Path) -> None:
    caption = "Ein Bär näht für Käthe"
    at = len(caption[: caption.index("Käthe")].encode())
    one = graph(caption, [{"text": "Käthe", "start": at, "end": at + len("Käthe".encode())}])
    assert spans(tmp_path / "g.jsonl", one) == [("object", "Käthe", "käthe")]
    assert counted(tmp_path / "g.jsonl", one)[MISPLACED] == 1


def test_a_place_that_is_given_is_no_other_objects(tmp_path: Path) -> None:
    one = graph(DOGS, ["dog", {"text": "dog", "start": 2, "end": 5}])
    (found,) = load_parser(write(tmp_path / "g.jsonl", one)).parse([DOGS], [""]).graphs
    assert isinstance(found, list)
    assert [c.spans[0].start for c in found] == [13, 2]
    assert counted(tmp_path / "g.jsonl", one) == {GRAPHS: 1, "objects": 2}


def test_two_of_one_name_in_a_relation_are_two(tmp_path: Path) -> None:
    one = graph(DOGS, [], relations=[["dog", "near", "dog"]])
    (found,) = load_parser(write(tmp_path / "g.jsonl", one)).parse([DOGS], [""]).graphs
    assert isinstance(found, list)
    assert [(c.kind, c.spans[0].start, c.subject, c.object) for c in found] == [
        ("object", 2, None, None), ("object", 13, None, None), ("relation", 6, 0, 1),
    ]  # fmt: skip


def test_what_an_attribute_shares_with_its_own_object_is_no_lack(tmp_path: Path) -> None:
    caption = "a red dog and a red cat"
    one = graph(caption, ["red dog", "red cat"], attributes=[[0, "red"], [1, "red"]])
    assert counted(tmp_path / "g.jsonl", one) == {GRAPHS: 1, "objects": 2, "attributes": 2}
    (found,) = load_parser(write(tmp_path / "g.jsonl", one)).parse([caption], [""]).graphs
    assert isinstance(found, list)
    assert [c.spans[0].start for c in found] == [2, 16, 2, 16]


def test_spans_that_were_not_taken_are_told_by_the_extraction(corpus: Path, tmp_path: Path) -> None:
    made = extract(corpus, tmp_path / "plain")
    caption = query(made, "SELECT caption FROM samples WHERE status = 'ok' LIMIT 1").to_pylist()[0]["caption"]
    word = caption.rstrip(".").split()[-1]
    write(tmp_path / "g.jsonl", graph(caption, [{"text": word, "start": 0, "end": 1}]))
    given = ["--shards", f"{corpus}/*.tar", "--workers", "0", "--detector", "none", "--graphs"]
    out = tmp_path / "store"
    done = CliRunner().invoke(app, ["extract", *given, str(tmp_path / "g.jsonl"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert MISPLACED in done.output
    assert MISPLACED in CliRunner().invoke(app, ["status", str(out)]).output


SCALARS = st.sampled_from([None, True, 0, 1, 7, -1, 2.0, 0.5, "dog", "near", "a", ""])
PARTS = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(
        st.sampled_from(
            ["text", "start", "end", "object", "subject", "owner", "id", "kind", "head", "lemma"]
        ),
        SCALARS,
    ),
)
LISTS = st.one_of(SCALARS, st.lists(PARTS, max_size=4))


@given(
    st.fixed_dictionaries(
        {}, optional={"objects": LISTS, "attributes": LISTS, "relations": LISTS, "concepts": LISTS}
    )
)
def test_whatever_a_line_holds_is_concepts_of_its_caption_or_counted(
    tmp_path_factory: pytest.TempPathFactory, line: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("graphs") / "g.jsonl"
    spec = write(path, {"caption": DOGS} | line)
    said = survey(path)
    parsed = load_parser(spec).parse([DOGS], [""])
    (found,) = parsed.graphs
    assert isinstance(found, list)
    assert all(isinstance(one, Concept) and DOGS[slice(*one.spans[0])] for one in found)
    assert len(found) == said["objects"] + said["attributes"] + said["relations"]
    assert parsed.counts.get(UNREADABLE, 0) == said[UNREADABLE]
