"""Repairs of what taggers and parsers misread: captions are fragments, and treebanks hold few of them."""

import re
from itertools import pairwise
from typing import Final

from macco.preprocess.graph.lexicon import (
    ACTS,
    ALIVE,
    ALONE,
    BARE,
    COLOURS,
    COUNTS,
    DETERMINERS,
    EMPTY,
    PEOPLE,
    POSTURES,
    SAME,
)
from macco.preprocess.graph.phrases import HEADS
from macco.preprocess.graph.words import Sentence, Word

# Labels of a word inside a noun phrase, in front of its noun.
BEFORE: Final = ("compound", "nmod", "amod")
OWN: Final = (*BEFORE, "det", "nummod", "poss")
# Stems of "riding", "juggling", "serving".
SILENT_E: Final = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]|.*[^aeioulr][lr]|.*[vzuc]")


def correct_tags(sentence: Sentence) -> None:
    """In "a man rides a moped", a "moped" tagged as a verb is a noun, and "rides" tagged as a noun is a verb."""
    for word in sentence.words:
        pos = word.pos_
        if word.form in COUNTS and word.dep_ in BEFORE and word.i < word.head.i:
            word.dep_ = "nummod"
        elif pos == "PROPN":
            word.pos_ = "NOUN"
        elif pos == "NOUN":
            participle = word.dep_ in ("acl", "advcl") and word.form.endswith("ing")
            if participle or (word.kids and word.kid("nsubj") and not word.kid("det", "poss")):
                make_verb(word)
        elif word.dep_ in HEADS and pos in ("VERB", "ADJ", "ADV", "X", "INTJ"):
            determined = any(kid.form in DETERMINERS and kid.i < word.i for kid in word.kids)
            governs = word.kid("nsubj", "nsubjpass", "dobj", "aux", "auxpass")
            inside = word.dep_ == "pobj" and pos in ("VERB", "X")
            if (determined and not governs) or inside or (pos == "ADJ" and _is_bare_noun(word)):
                word.pos_ = word.pos = "NOUN"
        if (
            word.dep_ in ("compound", "nmod")
            and word.i < word.head.i
            and (pos == "VERB" or word.form in COLOURS)
        ):
            word.dep_ = "amod"  # a sleeping dog, an orange cat


def _is_adjective(conjunct: Word) -> bool:
    return conjunct.dep_ == "conj" and conjunct.pos_ == "ADJ"


def make_verb(word: Word) -> None:
    """Make a noun of the tagger's a verb; "riding" is then of "ride"."""
    word.pos_ = word.pos = "VERB"
    if word.lemma_ == word.form and word.form.endswith("ing"):
        word.lemma_ = infinitive(word.form)


def infinitive(participle: str) -> str:
    """ "ride" of "riding", by the spelling alone."""
    stem = participle.removesuffix("ing")
    if stem[-1:] == stem[-2:-1] and stem[-1:] not in ("l", "s", "z", "e"):
        return stem[:-1] or participle
    return stem + "e" if SILENT_E.fullmatch(stem) else stem or participle


def _is_bare_noun(word: Word) -> bool:
    """In "Adult sitting on a bench" and "wrapped in plastic" a noun without an article looks like an adjective."""
    acts = word.dep_ == "ROOT" and word.kid("acl")  # "orange sitting on a table" is no colour
    if (
        (word.form in COLOURS and not acts)
        or word.form in BARE
        or any(_is_adjective(kid) for kid in word.kids)
    ):
        return False
    if word.dep_ in ("pobj", "dobj"):
        return not word.kid("prep", "advmod")
    after = next((kid for kid in word.kids if kid.i > word.i and kid.dep_ != "punct"), None)
    if word.dep_ == "nsubj":
        return after is None
    return bool(
        word.dep_ == "ROOT"
        and not word.kid("nsubj", "nsubjpass", "npadvmod", "advmod", "cop")
        and after
        and (
            after.dep_ == "acl"
            or (after.dep_ == "prep" and after.form in ("in", "on", "under", "behind", "near"))
        )
    )


def free_subjects(sentence: Sentence) -> None:
    """In "large bus making a turn" and "people riding bikes" the first noun is no part of a compound."""
    words = sentence.words
    for noun, verb in pairwise(words):
        if noun.pos_ != "NOUN" or not verb.form.endswith(("ing", "s", "ed")):
            continue
        if verb.pos_ == "VERB" and noun.dep_ in ("compound", "nmod") and noun.head is verb:
            for kid in [kid for kid in verb.kids if kid.i < noun.i and kid.dep_ in OWN]:
                kid.attach(noun, kid.dep_)
            noun.dep_ = "nsubj"
        elif verb.dep_ in BEFORE and verb.form.endswith("ing") and verb.i < verb.head.i:
            _free_participle(noun, verb)
    for link in words[1:-2]:
        verb = words[link.i + 1]
        if link.form == "and" and verb.dep_ in BEFORE and verb.form.endswith("ing") and verb.i < verb.head.i:
            _part_conjuncts(verb)


def _free_participle(noun: Word, verb: Word) -> None:
    """In "people riding bikes" the bikes are what is ridden, not "riding bikes"."""
    thing = verb.head
    if not thing.is_noun or noun.head is verb or infinitive(verb.form) in ALONE:
        return
    living = noun.lemma_ in PEOPLE
    own = [kid for kid in thing.kids if kid.i < noun.i]
    inside = noun.head is thing and noun.dep_ in BEFORE
    street = infinitive(verb.form) in ACTS and noun.lemma_ not in ALIVE and thing.dep_ != "ROOT"
    if inside and (living or street):  # "down the street smoking a cigarette"
        noun.replace(thing)
        for kid in own:
            kid.attach(noun, kid.dep_)
    elif own or noun.within(thing) or not (noun.lemma_ in ALIVE or verb.pos_ == "VERB"):
        return
    verb.attach(noun, "acl")
    make_verb(verb)
    thing.attach(verb, "dobj")


def _part_conjuncts(verb: Word) -> None:
    """In "wearing a helmet and riding a bike" nobody wears a "riding bike"."""
    thing = verb.head
    first = thing.head.head if thing.dep_ == "conj" else thing
    if thing.dep_ == "conj" and first.is_verb and infinitive(verb.form) in ACTS:
        verb.attach(first, "conj")
        make_verb(verb)
        thing.attach(verb, "dobj")


def part_verbs(sentence: Sentence) -> None:
    """In "a tree stands by a lake", "tree stands" is no compound: "a" has no plural, and a preposition follows."""
    words = sentence.words
    for word, after in pairwise(words[1:]):
        noun = words[word.i - 1]
        if word.dep_ not in ("ROOT", "conj") or word.pos_ != "NOUN":
            continue
        if noun.dep_ != "compound" or noun.head is not word:
            continue
        plural, plural_noun = word.lemma_ != word.form, noun.lemma_ != noun.form
        if plural and word.kid("nummod"):  # two fruit stands
            continue
        articled = any(kid.form in ("a", "an") for kid in word.kids if kid.i < noun.i)
        if after.pos_ in ("ADP", "ADV") and plural != plural_noun and (articled or word.lemma_ in POSTURES):
            for kid in [kid for kid in word.kids if kid.i < noun.i]:
                kid.attach(noun, kid.dep_)
            noun.dep_, noun.pos_ = "nsubj", "NOUN"
            word.pos_ = word.pos = "VERB"
            if after.dep_ == "prep":
                after.attach(word, "prep")
            main = word.head  # of "the dog runs on the grass and the cat hides" the verb, not the grass
            while word.dep_ == "conj" and not main.is_verb and main.head is not main:
                main = main.head
            word.attach(main, word.dep_)


def part_lacks(sentence: Sentence) -> None:
    """In "a road free of cars" the road is no part of a name "road free"."""
    for noun, lack in pairwise(sentence.words[:-1]):
        of = sentence.words[lack.i + 1]
        if lack.form not in EMPTY or of.form != "of" or of.head is not lack:
            continue
        if noun.head is lack and noun.dep_ in (*BEFORE, "nsubj") and noun.pos_ in ("NOUN", "PROPN"):
            own = [kid for kid in lack.kids if kid.i < noun.i]
            noun.replace(lack)
            for kid in own:
                kid.attach(noun, kid.dep_)
            lack.dep_, lack.pos_ = "amod", "ADJ"


def part_possessions(sentence: Sentence) -> None:
    """In "the boat has paint peeling" it has paint: a perfect would say "painted"."""
    for have in sentence.words:
        thing = have.head
        if have.dep_ != "aux" or have.lemma_ != "have" or thing.i != have.i + 1 or thing.pos_ != "VERB":
            continue
        shirt = thing.kid("dobj")
        if thing.form == thing.lemma_ and thing.form not in SAME:
            _possess(have, thing)
        elif shirt and shirt.i == thing.i + 1 and not thing.kid("prep", "prt", "advmod"):
            _possess(have, shirt, thing)


def _possess(have: Word, thing: Word, participle: Word | None = None) -> None:
    """Make an auxiliary "has" the verb, and `thing` its object, in place of what it helped."""
    helped = have.head
    have.replace(helped)
    have.pos_ = have.pos = "VERB"
    for kid in [kid for kid in helped.kids if kid.i < have.i]:
        kid.attach(have, kid.dep_)
    thing.attach(have, "dobj")
    thing.dep_ = "dobj"
    if participle:
        participle.attach(thing, "amod")
    else:
        thing.pos_ = thing.pos = "NOUN"
        for kid in thing.kids:
            if kid.dep_ in ("xcomp", "ccomp", "advcl"):
                kid.dep_ = "acl"
