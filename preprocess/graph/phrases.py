"""Repairs of noun phrases: what is an object, its head, its attributes, its companions."""

from itertools import pairwise
from typing import Final

from macco.preprocess.graph.lexicon import (
    COLOURS,
    HYPHENS,
    LOOKS,
    NEGATIONS,
    NO_DEGREE,
    QUANTITIES,
    SHADES,
    SIGNS,
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
    if not any(hyphen in sentence.read for hyphen in HYPHENS):
        return
    runs: list[list[Word]] = []
    for i in range(1, len(words) - 1):
        before, hyphen, after = words[i - 1 : i + 2]
        if hyphen.form in HYPHENS and before.to == hyphen.at and hyphen.to == after.at:
            if runs and runs[-1][-1] is before:
                runs[-1] += [hyphen, after]
            else:
                runs.append([before, hyphen, after])
    for run in runs:
        outer = [w for w in run if w.dep_ not in ("punct", "cc") and (w.head is w or w.head not in run)]
        speaker = outer[-1] if outer else run[-1]  # where several do, the last word speaks for all
        noun = speaker.head
        for word in run:
            if word is not speaker and speaker.within(word) and noun not in run and noun.is_noun:
                for kid in [kid for kid in word.kids if kid not in run and not noun.within(kid)]:
                    kid.attach(noun, kid.dep_)
                noun.replace(word)  # a mother-of-pearl box
            if word is not speaker:
                word.attach(speaker, word.dep_)
                speaker.absorb(word, core=True)


def name_signs(sentence: Sentence) -> None:
    """In "a do not enter sign" the sign is called so: nothing is denied."""
    words = sentence.words
    for i, do in enumerate(words[:-3]):
        sign = words[i + 3]
        if do.form != "do" or words[i + 1].form not in NEGATIONS or sign.form not in SIGNS:
            continue
        order = words[i : i + 3]
        above = [word for word in order if sign.within(word)]
        if top := next((word for word in above if word.head is word or word.head not in order), None):
            sign.replace(top)
        for word in order:
            sign.absorb(word, core=True)
        sign.pos_ = sign.pos = "NOUN"


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


def join_looks(sentence: Sentence) -> None:
    """In "a nice looking, long sleeved shirt" the attributes are "nice looking" and "long sleeved"."""
    for word, after in pairwise(sentence.words):
        if after.form not in LOOKS or word.pos_ != "ADJ" or word.dep_ != "amod":
            continue
        if after.dep_ in ("amod", "compound", "nmod") and (word.head is after.head or word.head is after):
            after.dep_, after.lemma_ = "amod", after.form
            after.absorb(word)
            for degree in [kid for kid in after.kids if kid.dep_ == "advmod" and kid.i == word.i - 1]:
                after.absorb(degree)


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
        if part.head is part:  # a root that the parser calls so
            return False
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


def keep_participles(sentence: Sentence) -> None:
    """In "a striped shirt" the attribute is "striped", not "stripe"."""
    for word in sentence.words:
        if word.pos == "VERB" and word.dep_ in ("amod", "acomp", "oprd"):
            word.lemma_ = word.form


def find_chunks(sentence: Sentence) -> None:
    """In "the man's dog" both are objects; pronouns get a chunk too, since the rules relate by chunks."""
    for word in sentence.words:
        if word.is_noun:
            where = (
                word.form in WHERE
                and word.dep_ == "pobj"
                and len(word.core) == 1
                and not word.kid("amod", "nummod", "prep")
            )
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
