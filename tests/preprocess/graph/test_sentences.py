"""Captions of several sentences."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.schema import Concept
from macco.preprocess.graph.scene_graphs import SceneGraphs
from macco.preprocess.graph.sentences import sentences
from tests.support import DATA

LONG = (
    "In the foreground, a white cat sleeps on a wooden table. A vase of flowers stands beside it! "
    'The sign says "STOP." Two men wear blue shirts.'
)


@functools.cache
def graphs() -> SceneGraphs:
    return SceneGraphs.load("en_caption", "repaired")


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        (LONG, 4),
        ("A dog on a sofa.", 1),
        ("A dog on a sofa. ", 1),
        ("a st. bernard near Mr. Smith of the U.S. Navy.", 1),
        ("a dog . a cat .", 2),
        ("A dog... and a cat", 1),
        ("A dog. ...", 1),
        ("Is it a dog? Yes", 2),
        ("J. Doe at 3.5 ft. A dog", 1),
        ("", 1),
        (". . .", 1),
    ],
)
def test_where_a_sentence_ends(caption: str, parts: int) -> None:
    found = sentences(caption)
    assert len(found) == parts
    assert all(caption[start : start + len(text)] == text for start, text in found)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("aA .!?\n\"'st"), max_size=40))
def test_no_word_is_lost(caption: str) -> None:
    found = sentences(caption)
    assert all(caption[start : start + len(text)] == text for start, text in found)
    assert sum(letter.isalpha() for _, text in found for letter in text) == sum(map(str.isalpha, caption))


def said(concepts: list[Concept], start: int = 0) -> set[tuple[object, ...]]:
    """Concepts by where they stand, those that they belong to likewise."""

    def spans(place: int | None) -> object:
        return (
            None if place is None else tuple((s.start + start, s.end + start) for s in concepts[place].spans)
        )

    return {
        (
            c.kind,
            spans(n),
            c.lemma,
            c.head.start + start,
            c.phrase,
            *map(spans, (c.subject, c.object, c.owner)),
        )
        for n, c in enumerate(concepts)
    }


def test_each_sentence_is_parsed_as_if_it_stood_alone() -> None:
    (whole,) = graphs().parse([LONG])
    alone = [said(graphs().parse([text])[0], start) for start, text in sentences(LONG)]
    assert said(whole) == set.union(*alone)
    assert [c.kind for c in whole] == sorted(
        (c.kind for c in whole), key=["object", "attribute", "relation"].index
    )
    assert {"cat", "table", "vase", "flower", "shirt"} <= {c.lemma for c in whole}


def test_captions_of_one_sentence_stay_one() -> None:
    captions = (DATA / "captions_coco.txt").read_text().splitlines()
    whole = [caption for caption in captions if len(sentences(caption)) == 1]
    assert len(whole) > 0.95 * len(captions)
