"""Scene graphs: the rules, their repairs, and what holds for every caption."""

from collections.abc import Iterator
from functools import cache

import pytest
import sng_parser
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from macco.pipeline.errors import UserError
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept
from macco.preprocess.graph.language import load_pipeline
from macco.preprocess.graph.lexicon import WHERE
from macco.preprocess.graph.scene_graphs import SceneGraphs, places, readable
from tests.support import DATA
from tests.support.parses import VOCAB, Case, cases, doc, told, words

COCO = DATA.joinpath("captions_coco.txt").read_text(encoding="utf-8").splitlines()


@cache
def graphs(rules: str = "repaired") -> SceneGraphs:
    return SceneGraphs(load_pipeline(), rules)


@cache
def rules_alone(rules: str = "repaired") -> SceneGraphs:
    return SceneGraphs(spacy.blank("en"), rules)


def find(caption: str, rules: str = "repaired") -> list[Concept]:
    """Concepts of one of the hand-made parses."""
    case = next(case for case in cases() if case.caption == caption)
    return rules_alone(rules).concepts(doc(caption, case.parse), caption)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.caption)
def test_repaired_rules_on_parses_made_by_hand(case: Case) -> None:
    assert (
        told(case.caption, rules_alone().concepts(doc(case.caption, case.parse), case.caption)) == case.found
    )


@pytest.mark.parametrize(
    ("caption", "lemma", "head", "pos"),
    [
        ("A dog to the left of a car", "to the left of", "left", "NOUN"),
        ("A man stands in front of a piano.", "stand in front of", "stands", "VERB"),
        ("A car far from a bus", "far from", "far", "ADV"),
        ("A man picks the ball up.", "pick up", "picks", "VERB"),
        ("A piano played by a woman", "play by", "played", "VERB"),
        ("A dog sitting quietly on a mat", "sit on", "sitting", "VERB"),
        ("The dog is on the table.", "on", "on", "ADP"),
    ],
)
def test_relations_have_lemma_and_head(caption: str, lemma: str, head: str, pos: str) -> None:
    relation = next(concept for concept in find(caption) if concept.kind == RELATION)
    assert (relation.lemma, caption[relation.head.start : relation.head.end], relation.pos) == (
        lemma,
        head,
        pos,
    )
    assert relation.phrase is None


@pytest.mark.parametrize(
    ("caption", "lemma", "head", "phrase"),
    [
        ("The ice cream truck", "ice cream truck", "ice cream truck", "ice cream truck"),
        ("A group of people with a pair of shoes", "people", "people", "people"),
        ("The dog is small and black.", "dog", "dog", "small black dog"),
        ("One of the dogs is black.", "dog", "dogs", "black dogs"),
        ("A very large, light blue car and two bright red trucks", "car", "car", "very large light blue car"),
    ],
)
def test_objects_have_lemma_head_and_phrase(caption: str, lemma: str, head: str, phrase: str) -> None:
    thing = find(caption)[0]
    assert (thing.lemma, caption[thing.head.start : thing.head.end], thing.phrase) == (lemma, head, phrase)


def test_attributes_carry_their_owner_s_phrase_and_a_head() -> None:
    caption = "A very large, light blue car and two bright red trucks"
    concepts = find(caption)
    attributes = [concept for concept in concepts if concept.kind == ATTRIBUTE]
    heads = [caption[attribute.head.start : attribute.head.end] for attribute in attributes]
    assert heads == ["large", "blue", "two", "red"]
    assert [attribute.pos for attribute in attributes] == ["ADJ", "ADJ", "NUM", "ADJ"]
    assert all(a.phrase == concepts[a.owner].phrase for a in attributes if a.owner is not None)


def test_original_rules_keep_their_misses() -> None:
    assert told("The dog is small and black.", find("The dog is small and black.", "original")) == ["The dog"]
    assert "He" in told("He is riding it near a lake.", find("He is riding it near a lake.", "original"))
    caption = "A man picks the ball up."
    assert told(caption, find(caption, "original"))[-1] == "man -[picks]-> ball"


@pytest.mark.slow
def test_original_rules_are_scene_graph_parser_s_own() -> None:
    plain = sng_parser.Parser("spacy", model="blank:en")
    plain.unwrapped.nlp = lambda parsed: parsed
    for parsed in graphs().nlp.pipe(map(readable, COCO)):
        caption, graph = parsed.text, plain.parse(parsed)
        concepts = graphs("original").concepts(parsed, caption)
        entities = graph["entities"]
        assert [(words(caption, c), c.lemma) for c in concepts if c.kind == OBJECT] == [
            (entity["span"], entity["lemma_head"].lower()) for entity in entities
        ]
        assert sorted((c.owner, words(caption, c)) for c in concepts if c.kind == ATTRIBUTE) == sorted(
            (e, m["span"])
            for e, entity in enumerate(entities)
            for m in entity["modifiers"]
            if m["dep"] != "det"
        )
        assert {(c.subject, words(caption, c), c.object) for c in concepts if c.kind == RELATION} == {
            (relation["subject"], relation["relation"], relation["object"]) for relation in graph["relations"]
        }


def check(caption: str, concepts: list[Concept]) -> None:
    """What holds for the concepts of every caption."""
    places = range(len(concepts))
    order = [(OBJECT, ATTRIBUTE, RELATION).index(concept.kind) for concept in concepts]
    assert order == sorted(order)
    for concept in concepts:
        assert concept.spans
        assert concept.lemma == concept.lemma.lower()
        end = -1
        for span in (*concept.spans, concept.head):
            assert 0 <= span.start < span.end <= len(caption)
        for span in concept.spans:
            assert span.start > end
            end = span.end
        assert concept.spans[0].start <= concept.head.start
        assert concept.head.end <= concept.spans[-1].end
        for place in (concept.subject, concept.object, concept.owner):
            assert place is None or (place in places and concepts[place].kind == OBJECT)
        assert (concept.owner is not None) == (concept.kind == ATTRIBUTE)
        assert (concept.phrase is not None) == (concept.kind != RELATION)


@pytest.mark.parametrize("rules", ["repaired", "original"])
def test_real_captions(rules: str) -> None:
    for caption, concepts in zip(COCO, graphs(rules).parse(COCO), strict=True):
        check(caption, concepts)


def test_nearly_every_real_noun_is_an_object() -> None:
    missed = total = 0
    for parsed in graphs().nlp.pipe(map(readable, COCO)):
        spans = [concept.spans for concept in graphs().concepts(parsed, parsed.text)]
        covered = {place for parts in spans for span in parts for place in range(span.start, span.end)}
        nouns = [token for token in parsed if token.pos_ == "NOUN" and token.text.lower() not in WHERE]
        total += len(nouns)
        missed += sum(noun.idx not in covered for noun in nouns)
    assert total > 900
    assert missed < 0.01 * total


def listed(words: str) -> list[str]:
    return words.split(" ")


ODD = listed(
    "🐶 👩\u200d👩\u200d👧 e\u0301 \u00a0 \t \n \u200b \u202e ½ ﬁ 犬 собака - -- ' \" ( . , \x00 "
    "a dog on the left of who is black"
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ODD) | st.text(max_size=5), max_size=12).map(" ".join))
def test_any_string_parses(caption: str) -> None:
    for rules in ("repaired", "original"):
        check(caption, graphs(rules).parse([caption])[0])


@pytest.mark.parametrize("blank", ["\t", "\n", "  ", "\u00a0", " \u3000\r\n"])
def test_blanks_of_any_kind_change_no_graph(blank: str) -> None:
    words_ = ["🐶", "and", "a", "red", "do\u0301g", "sitting", "on", "a", "sofa"]
    caption = blank + blank.join(words_) + blank
    concepts = graphs().parse([caption])[0]
    check(caption, concepts)
    plain = " ".join(words_)
    assert [(c.kind, words(caption, c).split()) for c in concepts] == [
        (c.kind, words(plain, c).split()) for c in graphs().parse([plain])[0]
    ]


@given(st.text(alphabet="a🐶\u0301\t\n\u00a0\u3000\x1f\u200b \ud800"))
def test_places_lead_back_to_the_caption(caption: str) -> None:
    text = readable(caption)
    assert len(text) == len(places(caption))
    for c, place in zip(text, places(caption), strict=True):
        assert c in (caption[place], "\ufffd") or (c == " " and caption[place].isspace())


FORMS = listed("a red dog picks up in front of the left who is one group - light blue sitting and")
TAGS = listed("DET ADJ NOUN VERB ADP AUX PRON CCONJ ADV NUM PUNCT PROPN X")
LABELS = listed(
    "det amod nsubj dobj pobj prep ROOT conj cc acl relcl advmod compound nummod attr acomp agent nsubjpass prt "
    "advcl xcomp appos poss npadvmod expl aux punct dep"
)


@st.composite
def wild_docs(draw: st.DrawFn) -> Iterator[Doc]:
    """Any tree with any labels: no parser would give most of them."""
    size = draw(st.integers(1, 9))
    order = draw(st.permutations(range(size)))
    heads = [0] * size
    heads[order[0]] = order[0]
    for i, place in enumerate(order[1:], start=1):
        heads[place] = order[draw(st.integers(0, i - 1))]

    def each(values: list[str]) -> list[str]:
        return draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))

    return Doc(
        VOCAB,
        words=each(FORMS),
        spaces=draw(st.lists(st.booleans(), min_size=size, max_size=size)),
        pos=each(TAGS),
        deps=each(LABELS),
        heads=heads,
        lemmas=[""] * size,
    )


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(wild_docs())
def test_any_parse_gives_concepts(parsed: Doc) -> None:
    check(parsed.text, rules_alone().concepts(parsed, parsed.text))


def test_equal_captions_have_equal_graphs_in_their_places() -> None:
    dog, cat = "a dog on a sofa", "a black cat"
    assert graphs().parse([dog, cat, dog]) == [graphs().parse([c])[0] for c in (dog, cat, dog)]
    assert graphs().parse([]) == []


def test_half_a_surrogate_pair_parses_and_keeps_its_place() -> None:
    caption = "\ud83d a dog"
    assert [words(caption, c) for c in graphs().parse([caption])[0]][-1].endswith("dog")
    assert readable(" ab\ud83dc  d") == "ab\ufffdc d"


def test_unknown_rules_are_the_user_s_mistake() -> None:
    with pytest.raises(UserError, match="repaired or original"):
        SceneGraphs(spacy.blank("en"), "none")


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        (
            "A large red dog is pushing a small green motorcycle next to the ice cream truck.",
            ["dog -[pushing]-> motorcycle", "dog -[next to]-> ice cream truck"],
        ),
        (
            "Two black cats are sitting on a light blue sofa.",
            ["cat: Two", "sofa: light blue", "cat -[sitting on]-> sofa"],
        ),
        ("There is a man who is holding a pizza.", ["man -[holding]-> pizza"]),
        ("The dog is black.", ["dog: black"]),
        (
            "A group of people stands in front of a house.",
            ["A group of people", "people -[stands in front of]-> house"],
        ),
    ],
)
def test_embedded_pipeline_end_to_end(caption: str, found: list[str]) -> None:
    assert set(found) <= set(told(caption, graphs().parse([caption])[0]))
