"""Repairs of noun phrases: what is an object, its head, its attributes, its companions."""

from itertools import pairwise
from typing import Final

from macco.preprocess.graph.lexicon import (
    COLOURS,
    DETERMINERS,
    HYPHENS,
    NO_DEGREE,
    POSTURES,
    QUANTITIES,
    SHADES,
    WHERE,
)
from macco.preprocess.graph.words import ABSORBED, Chunk, Sentence, Word

# Labels under which a noun heads a phrase of its own.
HEADS: Final = frozenset({"nsubj", "nsubjpass", "dobj", "pobj", "dative", "attr", "conj", "appos", "ROOT"})
# Labels of a noun that is part of another noun phrase.
INNER: Final = frozenset(
    {"compound", "nmod", "amod", "nummod", "quantity", "det", "predet", "quantmod", ABSORBED}
)
# Labels of what stands in front of a noun and belongs to its phrase.
FRONT: Final = INNER | {"poss", "advmod", "npadvmod", "case", "conj", "neg"}


def join_hyphens(sentence: Sentence) -> None:
    """In "a black-and-white T-shirt", "black-and-white" is one word and "T-shirt" another."""
    words = sentence.words
    if not any(hyphen in sentence.text for hyphen in HYPHENS):
        return
    for i in range(1, len(words) - 1):
        hyphen = words[i]
        if hyphen.form in HYPHENS and words[i - 1].end == hyphen.start and hyphen.end == words[i + 1].start:
            left, right = words[i - 1].standing, words[i + 1].standing
            outer, inner = (left, right) if right.within(left) and left.dep_ != "ROOT" else (right, left)
            if inner.within(outer):
                outer.absorb(hyphen, core=True)
            else:  # neither is below the other: the last word speaks for both
                inner.attach(outer, inner.dep_)
                outer.absorb(hyphen, core=True)
            outer.absorb(inner, core=True)


def correct_tags(sentence: Sentence) -> None:
    """In "a man rides a moped", a "moped" tagged as a verb is a noun, and "rides" tagged as a noun is a verb."""
    for word in sentence.words:
        pos = word.pos_
        if pos == "PROPN":
            word.pos_ = "NOUN"
        elif pos == "NOUN":
            if word.kids and word.kid("nsubj") and not word.kid("det", "poss"):
                word.pos_ = word.pos = "VERB"
        elif word.dep_ in HEADS and pos in ("VERB", "ADJ", "ADV", "X", "INTJ"):
            determined = any(kid.form in DETERMINERS and kid.i < word.i for kid in word.kids)
            governs = word.kid("nsubj", "nsubjpass", "dobj", "aux", "auxpass")
            if (determined and not governs) or (word.dep_ == "pobj" and pos in ("VERB", "X")):
                word.pos_ = word.pos = "NOUN"
        if (
            word.dep_ in ("compound", "nmod")
            and word.i < word.head.i
            and (pos == "VERB" or word.form in COLOURS)
        ):
            word.dep_ = "amod"  # a sleeping dog, an orange cat


def part_verbs(sentence: Sentence) -> None:
    """In "a tree stands by a lake", "tree stands" is no compound: "a" has no plural, and a preposition follows."""
    words = sentence.words
    for word, after in pairwise(words[1:]):
        noun = words[word.i - 1]
        if word.dep_ != "ROOT" or word.pos_ != "NOUN" or noun.dep_ != "compound" or noun.head is not word:
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


def see_through_quantities(sentence: Sentence) -> None:
    """In "a group of people" the people are the object; the group only says how many."""
    for word in sentence.words:
        if word.form not in QUANTITIES or word.dep_ in INNER:
            continue
        of = next(
            (kid for kid in word.kids if kid.form == "of" and kid.i > word.i and kid.dep_ == "prep"), None
        )
        things = of.kid("pobj") if of else None
        if not of or not things or not things.is_noun:
            continue
        kids = [kid for kid in word.kids if kid is not of]
        things.replace(word)
        for kid in kids:
            kid.attach(things, "quantity" if kid.i < of.i else kid.dep_)
        word.dep_ = "nummod" if word.pos == "NUM" else "quantity"
        of.dep_ = ABSORBED


def join_compounds(sentence: Sentence) -> None:
    """In "an ice cream truck" three words are one head, in their order."""
    for word in sentence.words:
        if word.kids and word.is_noun and word.dep_ not in ("compound", "nmod"):
            while word.parts[0] > 0:
                before = sentence.words[word.parts[0] - 1]
                if before.dep_ not in ("compound", "nmod", ABSORBED):
                    break
                part = before.standing
                if part.parts[-1] != word.parts[0] - 1 or not _in_compound(part, word):
                    break
                word.absorb(part, core=True)


def _in_compound(part: Word, word: Word) -> bool:
    while part.dep_ in ("compound", "nmod") and part.pos_ in ("NOUN", "X"):
        if part.head is word:
            return True
        part = part.head
    return False


def join_degrees(sentence: Sentence) -> None:
    """In "a light blue, very large car" the attributes are "light blue" and "very large"."""
    for word, after in pairwise(sentence.words):
        if word.form in SHADES and after.form in COLOURS and after.dep_ in ("amod", "acomp", "conj", "attr"):
            if after.head is word:
                after.replace(word)
            after.absorb(word)
        elif (
            word.dep_ in ("advmod", "npadvmod")
            and word.head is after
            and (after.pos_ == "ADJ" or after.dep_ == "amod")
            and word.form not in NO_DEGREE
        ):
            after.absorb(word)


def flatten_conjuncts(sentence: Sentence) -> None:
    """In "a dog, a cat and a bird" the third hangs below the first, where the rules look for it."""
    for word in sentence.words:
        if word.dep_ == "appos" and word.is_noun and word.kid("conj"):
            word.dep_ = "conj"
        if word.dep_ == "conj":
            if word.head.dep_ == "conj":
                word.attach(word.head.head, "conj")
            if word.pos_ == "ADP" and word.head.pos_ == "ADP":  # on the sofa and under the table
                word.attach(word.head.head, "prep")


def share_modifiers(sentence: Sentence) -> None:
    """In "a dog and a cat on a sofa" both are on it; in "a dog and a bowl of soup" only the bowl has soup."""
    for last in sentence.words:
        if last.dep_ != "conj" or not last.is_noun or not last.head.is_noun:
            continue
        row = [last.head, *(kid for kid in last.head.kids if kid.dep_ == "conj" and kid.is_noun)]
        described = any(
            kid.i > noun.i and kid.dep_ in ("prep", "acl", "relcl") for noun in row[:-1] for kid in noun.kids
        )
        if last is not row[-1] or described:
            continue
        for kid in list(last.kids):
            shared = kid.dep_ == "acl" or (kid.dep_ == "prep" and kid.form not in ("of", "with", "without"))
            if shared and kid.i > last.i:
                kid.attach(last.head, kid.dep_)


def find_chunks(sentence: Sentence) -> None:
    """In "the man's dog" both are objects; pronouns get a chunk too, since the rules relate by chunks."""
    for word in sentence.words:
        if word.is_noun:
            where = word.form in WHERE and word.dep_ == "pobj" and not word.kid("amod", "nummod", "prep")
            if word.dep_ not in INNER and not where:
                sentence.noun_chunks.append(Chunk(_front(word), word.i + 1, word))
        elif word.pos_ == "PRON" and word.dep_ in HEADS:
            sentence.noun_chunks.append(Chunk(word.i, word.i + 1, word))


def _front(word: Word) -> int:
    """The place where the phrase in front of a noun begins."""
    first = word.parts[0]
    for kid in word.kids:
        if kid.i > word.i:
            break
        if kid.dep_ in FRONT:
            first = min(first, _front(kid) if kid.kids else kid.parts[0])
    return first
