"""Kinds of captions that parsers go wrong with, end to end, and agreement with graphs written by hand."""

import pytest

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION
from tests.preprocess.graph.test_graph import check, graphs
from tests.support.graphs import f1, facts, gold, kinds, told_with_denial
from tests.support.parses import told


@pytest.mark.parametrize(
    ("caption", "found"), kinds(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_graphs_of_kinds(caption: str, found: list[str]) -> None:
    concepts = graphs().parse([caption])[0]
    check(caption, concepts)
    assert told_with_denial(caption, concepts) == found


@pytest.mark.parametrize(("caption", "found"), [kind for kind in kinds() if kind[0].isascii()][::7])
def test_the_full_stop_and_capitals_make_no_other_graph(caption: str, found: list[str]) -> None:
    capital = caption[:1].upper() + caption[1:].rstrip(".") + "."
    lines = [line.lower() for line in told_with_denial(capital, graphs().parse([capital])[0])]
    assert lines == [line.lower() for line in found]


def test_graphs_agree_with_those_written_by_hand() -> None:
    captions, right = zip(*gold(), strict=True)
    scores = {}
    for rules in ("repaired", "original"):
        found = [facts(concepts) for concepts in graphs(rules).parse(captions)]
        scores[rules] = f1(list(zip(found, right, strict=True)))
    assert scores["repaired"] > 0.93
    assert scores["original"] < 0.85


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("two dogs, one black and one white", "dogs"),
        ("the cat is not black", "cat"),
        ("the ball is neither red nor blue", "ball"),
        ("the bus is not red but blue", "blue bus"),
        ("there is no longer a tree in the yard", "tree"),
        ("one dog is black and the other is white", "dog"),
        ("a white dog and another black one on grass", "dog"),
        ("two dogs, one small and brown, the other big and white", "dogs"),
        ("a black-and-white cat", "black-and-white cat"),
        ("a tall, dark and handsome man", "tall dark handsome man"),
        ("A red dog&nbsp;on a sofa", "red dog"),
    ],
)
def test_the_detector_is_asked_for_what_is_so(caption: str, phrase: str) -> None:
    assert graphs().parse([caption])[0][0].phrase == phrase


@pytest.mark.parametrize(
    ("caption", "lemma"),
    [
        ("on the wall hangs a painting", "hang on"),
        ("in front of the house stands a statue", "stand in front of"),
        ("people walking up and down the street", "walk up and down"),
        ("a man not wearing a hat", "not wear"),
        ("The dog isn't on the sofa", "not on"),
        ("a table covered by a cloth", "cover by"),
        ("a man loading boxes", "load"),
    ],
)
def test_lemmas_of_relations(caption: str, lemma: str) -> None:
    assert [c.lemma for c in graphs().parse([caption])[0] if c.kind == RELATION] == [lemma]


@pytest.mark.parametrize("word", ["striped", "stuffed", "painted", "broken", "sleeping", "folded"])
def test_participles_are_attributes_as_they_are(word: str) -> None:
    (attribute,) = (c for c in graphs().parse([f"a {word} toy"])[0] if c.kind == ATTRIBUTE)
    assert attribute.lemma == word


def test_what_is_denied_is_no_thing_that_something_is_said_of() -> None:
    for caption in (
        "no red cars on the street",
        "there are no dogs or cats in the park",
        "a road with no cars",
    ):
        concepts = graphs().parse([caption])[0]
        denied = {place for place, concept in enumerate(concepts) if concept.denied}
        assert denied
        assert all(concepts[place].kind == OBJECT for place in denied)
        for concept in concepts:
            assert denied.isdisjoint([concept.owner, concept.subject, concept.object])


@pytest.mark.parametrize("nobody", ["nobody", "no one", "Nobody"])
def test_nobody_is_no_thing(nobody: str) -> None:
    assert told("", graphs().parse([f"{nobody} on the beach"])[0]) != []
    assert [c.lemma for c in graphs().parse([f"{nobody} on the beach"])[0]] == ["beach"]


@pytest.mark.parametrize(
    "caption", ["a no parking sign on a pole", "not only a dog on a sofa", "a dog with no-slip socks"]
)
def test_not_all_that_says_no_denies(caption: str) -> None:
    assert not any(concept.denied for concept in graphs().parse([caption])[0])


def test_original_rules_deny_nothing() -> None:
    assert not any(
        c.denied for c in graphs("original").parse(["no people on the beach, a man without a hat"])[0]
    )
