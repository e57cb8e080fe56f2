"""What a caption denies: "no people on the beach", "the cat is not black", "a man without a hat"."""

from collections.abc import Iterator

from macco.preprocess.graph.lexicon import BE, DEFINITE, EMPTY, LACKING, NEGATIONS, NOBODY
from macco.preprocess.graph.words import ABSORBED, Sentence, Word

OBJECTS = ("dobj", "pobj", "attr")
# What "no" stands in front of without denying it: "a no parking sign".
FORBIDDEN = ("entry", "left", "right", "turn", "parking", "smoking", "stopping", "swimming", "standing")


def deny(sentence: Sentence) -> None:
    """Mark the nouns of what is not there, and take back what verbs, prepositions and adjectives claim."""
    for word in sentence.words:
        if word.form in NEGATIONS:
            _deny_not(sentence, word)
        elif (word.form in LACKING and word.pos_ == "ADP") or _is_free_of(word):
            _deny_lack(sentence, word)
        elif _deny_each(sentence, word) or _deny_both(sentence, word):
            continue
        elif word.form == "nor" and word.i + 1 < len(sentence.words):
            verb = sentence.words[word.i + 1]
            if verb.pos in ("AUX", "VERB"):  # nor is there a dog
                _deny_predicate(sentence, word, verb if verb.is_verb else verb.head)
        elif word.form in ("none", "neither") and word.dep_ in ("quantity", "det", "predet", "cc", "preconj"):
            if word.head.dep_ in ("nsubj", "nsubjpass") and word.head.head.is_verb:
                _deny_predicate(sentence, word, word.head.head)
        elif word.form in NOBODY and word.dep_ != "quantity":
            word.pos_ = "PRON"
            sentence.denied.add(word.i)
        elif word.form == "no":
            _deny_no(sentence, word)


def _deny_both(sentence: Sentence, neither: Word) -> bool:
    """Deny both in "with neither knife nor fork" and "neither red nor blue"; subjects are there, and do not act."""
    if neither.form != "neither":
        return False
    first = neither.head
    acts = first.dep_ in ("nsubj", "nsubjpass") and first.i < first.head.i and first.head.is_verb
    row = [first, *(kid for kid in first.kids if kid.dep_ == "conj")]
    if acts or first.i < neither.i or not any(_follows(sentence, first, word, "nor") for word in row):
        return False
    sentence.denied.update(word.i for word in row)
    return True


def _deny_each(sentence: Sentence, none: Word) -> bool:
    """In "two cars, none of them red" they are not red."""
    words = sentence.words
    if none.form not in ("none", "neither"):
        return False
    of_them = [word.form for word in words[none.i + 1 : none.i + 3]] == ["of", "them"]
    said = words[none.i + 3].standing if of_them and none.i + 3 < len(words) else None
    if said is None or not said.head.is_noun or said.pos_ not in ("ADJ", "VERB", "ADP"):
        return False
    none.dep_, none.pos_ = "punct", "PRON"
    _take_back(sentence, none, said)
    return True


def _is_free_of(prep: Word) -> bool:
    """ "of" in "a road free of cars"."""
    return prep.form == "of" and prep.head.form in EMPTY and prep.i == prep.head.i + 1


def _follows(sentence: Sentence, first: Word, word: Word, *links: str) -> bool:
    """Whether one of these links stands between the first of a row and this one."""
    return any(between.form in links for between in sentence.words[first.i : word.i])


def _deny_not(sentence: Sentence, negation: Word) -> None:
    """In "not a car in sight" there is none; "a dog not on a leash" is there."""
    negation.lemma_ = "never" if negation.form == "never" else "not"
    if negation.dep_ == ABSORBED or negation.i + 1 == len(sentence.words):
        return
    head, after = negation.head, sentence.words[negation.i + 1].standing
    if after.form == "only":
        return
    # not all dogs are black: there are dogs
    if after.form in ("all", "every", "both") and after.head.is_noun:
        if after.head.dep_ in ("nsubj", "nsubjpass") and after.head.head.is_verb:
            _deny_predicate(sentence, negation, after.head.head)
        return
    if not head.is_noun:
        _deny_predicate(sentence, negation, head)
    elif head.i > negation.i:
        _deny_nouns(sentence, head)
    elif after.head is head and after.dep_ != "det" and not after.is_noun:
        _take_back(sentence, negation, after)
    else:  # a cat, not a dog
        noun = after if after.is_noun else after.head
        if noun.is_noun and noun.i > negation.i and noun.dep_ in ("conj", "appos"):
            sentence.denied.add(noun.i)


def _deny_no(sentence: Sentence, no: Word) -> None:
    """In "no dogs or cats" there are neither; "no one" is nobody; "no longer red" is not red."""
    if no.dep_ == ABSORBED or no.i + 1 == len(sentence.words):  # no-slip socks
        return
    thing, after = no.head, sentence.words[no.i + 1]
    if thing.form == "longer":
        _deny_predicate(sentence, no, thing.head)
        if thing.dep_ == "acomp":
            thing.dep_ = "neg"  # there is no longer a tree
    elif thing.form == "one":
        thing.pos_ = "PRON"
        sentence.denied.add(thing.i)
    elif thing.is_noun and thing is not no and not (after.form in FORBIDDEN and after is not thing):
        _deny_nouns(sentence, thing)


def _deny_nouns(sentence: Sentence, noun: Word) -> None:
    sentence.denied.add(noun.i)
    for kid in noun.kids:
        if kid.dep_ != "conj" or not kid.is_noun or _follows(sentence, noun, kid, "but"):
            continue
        if _follows(sentence, noun, kid, "nor") or not kid.kid("det", "poss", "nummod"):
            sentence.denied.add(kid.i)


def _deny_lack(sentence: Sentence, prep: Word) -> None:
    """In "a man without a hat or gloves" he has none of these."""
    sentence.denied.add(prep.i)
    for kid in list(prep.kids):
        if kid.is_noun:
            owner = prep.head.head if prep.head.pos_ == "ADJ" else prep.head
            for place in [k for k in kid.kids if k.dep_ == "prep" and k.form != "of"]:
                place.attach(owner, "prep")  # on the beach, it is the man
            for noun in (kid, *(k for k in kid.kids if k.dep_ == "conj" and k.is_noun)):
                sentence.denied.add(noun.i)
        elif kid.is_verb:
            _deny_predicate(sentence, prep, kid)


def _deny_predicate(sentence: Sentence, negation: Word, verb: Word) -> None:
    """Take back what the verb says, its words then holding the negation, and what nobody else vouches for."""
    thing = verb.kid("attr", "nsubj") if verb.kid("expl") else None
    if thing and thing.is_noun and thing.i > verb.i:  # there aren't any people
        _deny_nouns(sentence, thing)
        return
    for claim in list(_claims(verb)):
        if claim.i > negation.i and _follows(sentence, sentence.words[negation.i], claim, "but"):
            continue  # not wooden but metal
        _take_back(sentence, negation, claim)


def _take_back(sentence: Sentence, negation: Word, claim: Word) -> None:
    claim.parts = tuple(sorted({negation.i, *claim.parts}))
    sentence.denied.add(claim.i)
    if claim.pos_ != "ADJ":
        for thing in claim.kids:
            if thing.dep_ in OBJECTS and thing.is_noun and thing.i > negation.i:
                _deny_indefinite(sentence, thing)


def _deny_indefinite(sentence: Sentence, thing: Word) -> None:
    """In "not wearing a hat" there may be no hat; in "not on the sofa" there is a sofa."""
    if not any(kid.form in DEFINITE or kid.dep_ == "poss" for kid in thing.kids if kid.i < thing.i):
        _deny_nouns(sentence, thing)


def _claims(verb: Word) -> Iterator[Word]:
    """What a verb claims: "is" what follows it, others themselves."""
    if verb.form not in BE and verb.lemma_ != "be":
        yield verb
        for kid in verb.kids:  # of "not sitting on a chair" the chair as well
            if kid.dep_ == "prep" and kid.i > verb.i and not verb.kid("dobj"):
                yield kid
        return
    for kid in verb.kids:
        if kid.i > verb.i and kid.dep_ in ("prep", "acomp", "oprd", "advmod", "attr"):
            if kid.dep_ == "attr" and kid.is_noun:
                yield verb
            else:
                yield from (kid, *(k for k in kid.kids if k.dep_ == "conj"))
