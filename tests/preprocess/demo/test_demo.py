"""The demo corpus: true, deterministic, and honest about what is held out."""

import hashlib
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION
from macco.preprocess.demo import write_corpus
from macco.preprocess.demo.captions import captions
from macco.preprocess.demo.corpus import make, matching
from macco.preprocess.demo.icons import COLOURS, FRAME, NOUNS
from macco.preprocess.demo.scene import RELATIONS, SIDE, SIZES, Scene, held_out, random_scene
from tests.support import ROOT

seeds = st.integers(0, 2**31)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_vocabulary_is_large_enough() -> None:
    assert len(NOUNS) >= 80
    assert len(COLOURS) >= 8
    assert len(SIZES) == 3
    assert (ROOT / "preprocess/demo/icons.ttf").stat().st_size < 100_000


def test_equal_arguments_give_equal_bytes_and_images_do_not_depend_on_the_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_corpus(tmp_path / name, images=5, seed=3, shard_size=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").glob("*.tar")) == [
        "00000.tar",
        "00001.tar",
        "00002.tar",
    ]
    write_corpus(tmp_path / "one", images=1, seed=3)
    with (
        tarfile.open(tmp_path / "a" / "00000.tar") as many,
        tarfile.open(tmp_path / "one" / "00000.tar") as one,
    ):
        for name in ("000000000.jpg", "000000000.json"):
            first, second = many.extractfile(name), one.extractfile(name)
            assert first is not None
            assert second is not None
            assert first.read() == second.read()
    write_corpus(tmp_path / "other", images=5, seed=4, shard_size=2)
    assert digest(tmp_path / "other") != digest(tmp_path / "a")


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from(["train", "val", "test"]))
def test_captions_and_their_concepts(seed: int, split: str) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng, split)
    written = captions(scene, rng)
    assert len({text.lower().rstrip(".") for text, _ in written}) == 5
    for text, concepts in written:
        kinds = [concept.kind for concept in concepts]
        assert kinds == sorted(kinds, key=[OBJECT, ATTRIBUTE, RELATION].index)
        objects = {place for place, concept in enumerate(concepts) if concept.kind == OBJECT}
        for concept in concepts:
            (span,) = concept.spans
            assert 0 <= span.start <= concept.head.start < concept.head.end <= span.end <= len(text)
            assert text[span.start : span.end].strip() == text[span.start : span.end]
            ends = {OBJECT: (), ATTRIBUTE: (concept.owner,), RELATION: (concept.subject, concept.object)}[
                concept.kind
            ]
            assert set(ends) <= objects
            if concept.kind == OBJECT:
                assert concept.phrase
                assert matching(scene, concept.phrase), (text, concept)
                assert concept.phrase.endswith(text[concept.head.start : concept.head.end])
            if concept.kind == ATTRIBUTE and concept.owner is not None:
                assert concept.phrase == concepts[concept.owner].phrase
                assert concept.lemma in (concept.phrase or "").split() or concept.pos == "NUM"


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_relations_are_true_and_a_swap_is_false(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    held = set(scene.relations)
    opposite = {"left of": "right of", "above": "below", "on": "under", "behind": "in front of"}
    opposite |= {b: a for a, b in opposite.items()}
    for a, relation, b in held:
        assert relation in RELATIONS
        ax0, ay0, ax1, ay1 = scene.things[a].box
        bx0, by0, bx1, by1 = scene.things[b].box
        if relation in opposite:
            assert (b, opposite[relation], a) in held
            assert (b, relation, a) not in held
            assert (a, opposite[relation], b) not in held
        if relation == "left of":
            assert ax1 < bx0
        if relation in ("above", "on"):
            assert ay1 <= by0 + 1.5
        if relation == "inside":
            assert bx0 < ax0 < ax1 < bx1
            assert by0 < ay0 < ay1 < by1
            assert scene.things[b].noun == FRAME


def test_every_relation_and_group_occurs() -> None:
    scenes = [make("train", 0, index)[0] for index in range(300)]
    assert {relation for scene in scenes for _, relation, _ in scene.relations} == set(RELATIONS)
    assert {len(thing.boxes) for scene in scenes for thing in scene.things} == {1, 2, 3}
    twice = [scene for scene in scenes if len({thing.noun for thing in scene.things}) < len(scene.things)]
    assert 10 < len(twice) < 60
    assert all(2 <= len(scene.things) <= 4 for scene in scenes)


def test_test_scenes_hold_pairs_that_training_never_shows() -> None:
    def pairs(scene: Scene) -> set[str]:
        held = held_out([(thing.colour, thing.noun) for thing in scene.things])
        return {*held["colour_noun"], *held["noun_pair"]}

    assert not any(pairs(make(split, 0, index)[0]) for split in ("train", "val") for index in range(300))
    assert all(pairs(make("test", 0, index)[0]) for index in range(300))
    share = np.mean([bool(held_out([(c, n)])["colour_noun"]) for c in COLOURS for n in NOUNS])
    assert 0.05 < share < 0.15


def test_boxes_fit_the_ink() -> None:
    """Against the same scene drawn without one thing: what differs is the thing, and fills its box."""
    for index in range(40):
        scene, _ = make("val", 0, index)
        top = scene.things[-1]  # nothing covers it
        without = Scene(scene.things[:-1], scene.noise)
        diff = np.abs(np.asarray(scene.draw(), int) - np.asarray(without.draw(), int)).max(2) > 40
        ys, xs = np.nonzero(diff)
        x0, y0, x1, y1 = top.box
        assert 0 <= x0 < x1 <= SIDE
        assert 0 <= y0 < y1 <= SIDE
        assert abs(xs.min() - x0) <= 2
        assert abs(xs.max() + 1 - x1) <= 2
        assert abs(ys.min() - y0) <= 2
        assert abs(ys.max() + 1 - y1) <= 2


def test_the_json_member_describes_the_scene(corpus: Path) -> None:
    with tarfile.open(corpus / "00000.tar") as tar:
        file = tar.extractfile("000000000.json")
        assert file is not None
        about = json.loads(file.read())
    scene, _ = make("train", 1001, 0)
    assert [thing["noun"] for thing in about["objects"]] == [thing.noun for thing in scene.things]
    assert about["relations"] == [list(triple) for triple in scene.relations]
    assert len(about["captions"]) == 5


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--split"):
        write_corpus(tmp_path / "x", images=1, seed=0, split="dev")
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        write_corpus(tmp_path, images=1, seed=0)
