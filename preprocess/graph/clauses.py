"""Repairs of clauses: what relates objects, and which ones."""

from itertools import pairwise

from macco.preprocess.graph.lexicon import (
    ALIVE,
    ALONE,
    BE,
    PARTICLES,
    POSTURES,
    PREPOSITION_LENGTHS,
    PREPOSITIONS,
    RELATIVES,
)
from macco.preprocess.graph.phrases import HEADS
from macco.preprocess.graph.words import ABSORBED, Sentence, Word


def join_prepositions(sentence: Sentence) -> None:
    """In "stands in front of a house", "in front of" is one preposition, and the house its object."""
    words = sentence.words
    for i, last in enumerate(words):
        for length in PREPOSITION_LENGTHS.get(last.form, ()):
            run = words[max(0, i + 1 - length) : i + 1]
            if tuple([word.form for word in run]) in PREPOSITIONS:
                _join_preposition(run)
                break


def _join_preposition(run: list[Word]) -> None:
    first, last = run[0], run[-1]
    below = [kid for word in reversed(run) for kid in word.kids if kid.i > last.i]
    thing = next((kid for kid in below if kid.dep_ in ("pobj", "dobj", "attr", "dative")), None)
    thing = thing or next((kid for kid in below if kid.is_noun and kid.dep_ != "conj"), None)
    outer = next((word.head for word in run if word.head not in run), None)
    if thing is None or outer is None or outer.within(thing):
        return
    first.attach(outer, "prep")
    for word in run:
        word.lemma_ = word.form
        if word is not first:
            first.absorb(word)
    thing.attach(first, "pobj")
    first.pos_ = "ADP"
    first.core = next(
        ((word.i,) for word in run if word.pos not in ("ADP", "DET", "PART", "PRON")), (first.i,)
    )


def stack_prepositions(sentence: Sentence) -> None:
    """In "peeks out from behind a tree" the last preposition has the object, the relation has them all."""
    for word in reversed(sentence.words):
        if word.pos_ != "ADP" or word.dep_ not in ("prep", "pcomp") or word.i == 0:
            continue
        before = sentence.words[word.i - 1].standing
        below = (
            word.head is before and before.dep_ in ("prep", "advmod", "prt") and before.pos_ in ("ADP", "ADV")
        )
        beside = word.head is before.head and before.dep_ == "prep" and before.pos_ == "ADP"
        if (below or beside) and not any(kid is not word for kid in before.kids):
            before.absorb(word)
            before.dep_, before.pos_ = "prep", "ADP"


def join_particles(sentence: Sentence) -> None:
    """In "picks the ball up", as in "sits down on", the particle belongs to the verb."""
    for word in sentence.words:
        verb = word.head
        adverb = word.dep_ == "advmod" and word.form in PARTICLES and word.i == verb.i + 1
        before = sentence.words[word.i - 1]
        if before.head.form == "with" and before.kid("poss"):
            continue  # with his arms out
        if (adverb or (word.dep_ == "prt" and word.i > verb.i)) and verb.is_verb and verb.form not in BE:
            for kid in word.kids:
                if kid.dep_ == "pobj":
                    kid.dep_ = "dobj"
            verb.absorb(word)


def join_alternatives(sentence: Sentence) -> None:
    """In "walking up and down the street" "up and down" is one preposition."""
    words = sentence.words
    for link in words[1:-1]:
        if link.form not in ("and", "or") or link.dep_ != "cc":
            continue
        first, last = words[link.i - 1].standing, words[link.i + 1].standing
        both = all(word.pos_ in ("ADP", "ADV") and word.dep_ in DIRECTED for word in (first, last))
        if not both or any(kid.i > last.i for kid in first.kids if kid is not last):
            continue
        thing = last.kid("pobj", "dobj")
        verb = first.head if first.head is not last else last.head
        if thing is None or verb in (first, last):
            continue
        first.attach(verb, "prep")
        first.absorb(link)
        first.absorb(last)
        first.pos_ = "ADP"
        thing.attach(first, "pobj")


def relate_others(sentence: Sentence) -> None:
    """In "dogs looking at each other" the dogs are on both sides."""
    for other in sentence.words:
        if other.form != "other" or other.i == 0 or other.dep_ not in ("pobj", "dobj"):
            continue
        if sentence.words[other.i - 1].form == "each":
            other.pos_ = "PRON"
            sentence.reciprocal.add(other.i)
            one = other.head.head
            if (
                one.is_noun and one.form == one.lemma_ and other.dep_ == "pobj"
            ):  # in the grass with each other
                several = (w for w in reversed(sentence.words[: one.i]) if w.is_noun and w.form != w.lemma_)
                other.head.attach(next(several, one), "prep")


def resolve_pronouns(sentence: Sentence) -> None:
    """In "a table that has food on it" and "a table with food on it" the food is on the table."""
    for pronoun in sentence.words:
        prep = pronoun.head
        if pronoun.form not in ("it", "them") or pronoun.dep_ != "pobj" or prep.dep_ != "prep":
            continue
        before = reversed(sentence.words[: prep.i])
        thing = next((word for word in before if word.dep_ in THINGS and word.pos_ in ("NOUN", "PRON")), None)
        while thing and thing.dep_ == "conj" and thing.head is not thing:
            thing = thing.head
        if not thing or thing.head.form not in ("with", "has", "have", "having"):
            continue
        holder = thing.head
        owner = holder.head if holder.dep_ in ("prep", "acl") else holder.kid("nsubj")
        if owner and owner.is_noun and owner is not thing:
            if not prep.within(thing):
                prep.attach(thing, "prep")
            sentence.antecedents[pronoun.i] = owner.i


def turn_locatives(sentence: Sentence) -> None:
    """In "on the wall hangs a painting" the painting hangs there."""
    words = sentence.words
    if words:
        _turn_locative(sentence, words[0].standing)
    for link, first in pairwise(words):  # and on the right is a cat
        place = first.kid("pobj") if link.form in ("and", ",", ";") and first.pos_ == "ADP" else None
        after = words[place.i + 1] if place and place.i + 1 < len(words) else None
        if place and after and after.is_verb and not after.within(place):
            _turn_locative(sentence, first)


def _turn_locative(sentence: Sentence, first: Word) -> None:
    if first.pos_ not in ("ADP", "ADV"):
        return
    verb = next((word for word in sentence.words[first.i + 2 :] if word.is_verb), None)
    if verb is None or verb.kid("expl", "aux", "auxpass"):
        return
    wall = verb.kid("nsubj", "compound")
    still = verb.lemma_ in POSTURES or (verb.lemma_ in ALONE and wall and wall.lemma_ not in ALIVE)
    if first.kid("pobj") is None and wall and wall.i == verb.i - 1 and still:
        wall.attach(first, "pobj")  # under a tree sits a man
    thing = next((kid for kid in verb.kids if kid.dep_ in POSTPOSED and kid.i > verb.i and kid.is_noun), None)
    if thing and first.kid("pobj") and not any(kid.dep_ == "nsubj" and kid.i < verb.i for kid in verb.kids):
        thing.dep_ = "nsubj"
        first.attach(verb, "prep")
        verb.pos_ = "VERB"


def resolve_relatives(sentence: Sentence) -> None:
    """In "a man who holds a ball that a dog chases" the man holds it, and the dog chases the ball."""
    for verb in sentence.words:
        if verb.dep_ != "relcl":
            continue
        pronoun = next((kid for kid in verb.kids if kid.form in RELATIVES and kid.i < verb.i), None)
        noun: Word | None = verb.head
        if pronoun and not verb.head.is_noun:
            noun = next((word for word in reversed(sentence.words[: pronoun.i]) if word.is_noun), None)
        if not noun or not noun.is_noun:
            continue
        if pronoun and pronoun.dep_ not in ("nsubj", "nsubjpass"):
            sentence.antecedents[pronoun.i] = noun.i
        elif pronoun or not verb.kid("nsubj", "nsubjpass"):
            verb.attach(noun, "acl")
            if pronoun:
                pronoun.dep_ = "relative"


def turn_passives(sentence: Sentence) -> None:
    """In "a piano is played by a woman" it is the piano that is "played by" her."""
    for word in sentence.words:
        if word.dep_ == "nsubjpass":
            word.dep_ = "nsubj"
        elif word.dep_ == "agent":
            word.dep_ = "prep"


def open_copulas(sentence: Sentence) -> None:
    """In "the dog is on the table" and "there is a dog on the sofa" a dog is the subject of what follows."""
    for verb in sentence.words:
        if verb.form in BE and verb.is_verb:
            verb.pos_ = "VERB"
            if verb.kid("expl"):
                for kid in verb.kids:
                    if kid.dep_ == "attr":
                        kid.dep_ = "nsubj"


def attach_predicates(sentence: Sentence) -> None:
    """In "the dog is small and black" it has two attributes; in "the sky is full of clouds" a relation."""
    for word in sentence.words:
        verb = word.head
        if word.dep_ == "amod" and word.pos_ == "ADJ" and word.i > verb.i and verb.is_noun:
            _relate_adjective(word)
            continue
        predicate = word.dep_ == "acomp" or (word.dep_ in ("attr", "oprd") and word.pos_ == "ADJ")
        if not predicate or not verb.is_verb:
            continue
        prep = next((kid for kid in word.kids if kid.dep_ == "prep" and kid.parts[0] == word.i + 1), None)
        if prep:
            prep.parts = (*word.parts, *prep.parts)
            prep.core = word.core
            prep.attach(verb, "prep")
            verb.pos_ = "VERB"
            continue
        subject = verb.kid("dobj") or _subject(verb)  # the house has its windows broken
        if subject and subject.is_noun:
            word.attach(subject, "amod")


def _relate_adjective(adjective: Word) -> None:
    """In "a vase full of flowers" "full of" is a relation, but "a bus white with dirt" is white."""
    noun = adjective.head
    prep = next(
        (kid for kid in adjective.kids if kid.dep_ == "prep" and kid.parts[0] == adjective.i + 1), None
    )
    if prep and prep.kid("pobj"):
        prep.attach(noun, "prep")
        if prep.form in COMPLETING:
            prep.parts, prep.core = (*adjective.parts, *prep.parts), adjective.core
            adjective.dep_ = ABSORBED


def find_subjects(sentence: Sentence) -> None:
    """In "a man sits and eats, watching a bird" the later verbs have the first one's subject."""
    for verb in sentence.words:
        if verb.is_verb and verb.dep_ != "acl" and not verb.kid("nsubj"):
            subject = _subject(verb)
            if subject:
                verb.attach(subject, "acl")


def _subject(verb: Word) -> Word | None:
    """What the verb speaks of, through coordination and control."""
    own = verb.kid("nsubj")
    if own:
        return own
    head = verb.head
    if verb.dep_ in ("acl", "relcl"):
        return head if head.is_noun or head.pos_ == "PRON" else None
    if head is not verb and verb.dep_ in ("conj", "xcomp", "advcl", "ccomp", "dep"):
        if head.is_verb:
            return (head.kid("dobj") if verb.dep_ == "xcomp" else None) or _subject(head)
        return head if head.is_noun and head.i < verb.i else None
    # A noun in front that the parser could not place.
    return next(
        (kid for kid in reversed(verb.kids) if kid.i < verb.i and kid.is_noun and kid.dep_ in HEADS), None
    )


def join_verbs(sentence: Sentence) -> None:
    """In "sitting on a sofa in a room" the relations are "sitting on" and "in"."""
    for prep in sentence.words:
        verb = prep.head
        fronted = prep.i == 0 and prep.i < verb.i and prep.dep_ == "prep" and verb.i > 1
        if (
            prep.dep_ != "prep"
            or (prep.i < verb.i and not fronted)
            or verb.form in BE
            or not (verb.is_verb or verb.dep_ == "acl")
        ):
            continue
        between = [kid.dep_ for kid in verb.kids if verb.i < kid.i < prep.i or (fronted and verb.i < kid.i)]
        if FILLED.isdisjoint(between):
            prep.parts = tuple(sorted({*verb.parts, *prep.parts}))
            prep.core = verb.core


# Prepositions that an adjective needs: "full of", "similar to".
COMPLETING = ("of", "to", "from", "than", "as")
# Labels that parsers give to a subject behind its verb.
POSTPOSED = ("attr", "dobj", "nsubj", "npadvmod", "oprd", "ccomp", "pobj", "dep", "conj")
# Labels of what someone has or holds.
THINGS = ("pobj", "dobj", "conj")
# Labels of a preposition that says where a verb goes.
DIRECTED = ("prep", "prt", "advmod", "conj", "pcomp")
# Labels of what already completes a verb, so that a later preposition stands alone.
FILLED = frozenset({"prep", "dobj", "dative", "attr", "acomp", "oprd", "xcomp", "ccomp"})
