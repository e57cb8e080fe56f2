"""Repairs of coordination: what stands in a row with what, and what belongs to the whole row."""

from macco.preprocess.graph.lexicon import ACTS, ALIVE, BE
from macco.preprocess.graph.words import Sentence, Word

# What may stand between the adjectives of one noun.
LINKS = ("ADJ", "ADV", "CCONJ", "PUNCT")


def join_adjectives(sentence: Sentence) -> None:
    """In "a tall, dark and handsome man" all three are the man's, whatever the parser hung them on."""
    words = sentence.words
    for noun in words:
        if not noun.is_noun or noun.i == 0 or words[noun.i - 1].pos_ not in ("ADJ", "NOUN"):
            continue
        if noun.dep_ == "conj" and noun.head.pos_ == "ADJ":
            first = noun.head
            if all(word.pos_ in LINKS for word in words[first.i + 1 : noun.i]):
                noun.replace(first)
                first.dep_ = "amod"
                for kid in list(first.kids):
                    if kid.i < first.i or kid.i > noun.i:
                        kid.attach(noun, kid.dep_)
        before = words[noun.i - 1]
        if (
            before.dep_ == "conj"
            and before.pos_ == "NOUN"
            and before.head.pos_ == "ADJ"
            and before.head.head is noun
        ):
            before.pos_ = before.pos = "ADJ"  # green and leafy trees
        for kid in list(noun.kids):
            while kid.dep_ == "amod" and kid.pos_ == "ADJ":
                inner = next((k for k in kid.kids if k.dep_ == "amod" and k.i < kid.i), None)
                if inner is None or words[inner.i + 1].form not in (",", "and"):
                    break
                inner.attach(noun, "amod")


def split_rows(sentence: Sentence) -> None:
    """In "a cat in a box and a dog on a mat" the dog is no second box: it has a place of its own."""
    words = sentence.words
    for noun in words:
        if noun.dep_ not in ("conj", "appos") or not noun.is_noun or noun.i + 1 >= len(words):
            continue
        first = noun.head
        while first.dep_ == "conj" and first.head.is_noun and first.head is not first:
            first = first.head
        if not first.is_noun:
            continue
        after = words[noun.i + 1].standing
        if _begins_clause(after, noun):
            verb = after.head if after.dep_ in ("aux", "auxpass") else after
            noun.attach(verb, "nsubj")
            continue
        place = after.dep_ in ("prep", "acl") and after.kids
        if not place:
            continue
        owner = first
        if first.dep_ == "dobj" and _acts_too(first.head, noun, after):
            owner = first.head.head if first.head.dep_ == "acl" else first.head.kid("nsubj") or first
        elif first.dep_ == "pobj" and first.head.dep_ == "prep" and _parallel(first, noun, after):
            owner = _holder(first.head)
        elif not any(kid.dep_ == "prep" and kid.i < noun.i for kid in first.kids) or first.dep_ in (
            "pobj",
            "dobj",
        ):
            continue
        if owner.is_noun and owner.i < noun.i:
            noun.attach(owner, "conj")
            if noun.head is owner:
                after.attach(noun, after.dep_)


def _acts_too(verb: Word, noun: Word, after: Word) -> bool:
    """Whether in "a man riding a horse and a woman riding a bike" the woman is ridden by nobody."""
    return after.is_verb and (after.lemma_ == verb.lemma_ or (after.lemma_ in ACTS and noun.lemma_ in ALIVE))


def _parallel(first: Word, noun: Word, after: Word) -> bool:
    """Whether "X in FIRST and NOUN AFTER ..." says the same of X and NOUN, each with its own."""
    prep, owner = first.head, _holder(first.head)
    if prep.form in ("with", "of"):
        alike = after.form == prep.form
    else:
        alike = prep.form not in ("between", "without", "from", "to", "like") and after.form not in (
            "of",
            "with",
        )
    someone = noun.lemma_ in ALIVE and first.lemma_ not in ALIVE and (_determined(noun) or _plural(noun))
    if alike and someone and prep.form not in ("with", "of"):
        return True  # a boat in the harbor and people on the pier
    if not alike or _determined(noun) != _determined(owner):
        return False
    # "a man in a suit and tie standing ..." says it of one man
    return _determined(noun) or not _determined(first) or (_plural(noun) and _plural(owner))


def _determined(noun: Word) -> bool:
    return any(kid.dep_ in ("det", "nummod", "poss") for kid in noun.kids)


def _plural(noun: Word) -> bool:
    return noun.form != noun.lemma_ or noun.form in ("people", "sheep", "cattle", "deer", "fish")


def _holder(prep: Word) -> Word:
    """The noun that this preposition places: of "a dog lying on", the dog."""
    word = prep.head
    while not word.is_noun and word.head is not word:
        subject = word.kid("nsubj", "nsubjpass", "attr") if word.is_verb else None
        if subject and subject.i < prep.i:
            return subject
        word = word.head
    return word


def _begins_clause(word: Word, noun: Word) -> bool:
    """Whether this word behind a conjunct, "lies" or "is lying", is a verb that lacks a subject."""
    verb = word.head if word.dep_ in ("aux", "auxpass") else word
    if not verb.is_verb or verb.kid("nsubj", "nsubjpass") or verb.within(noun):
        return False
    finite = word is not verb or word.form in BE or not word.form.endswith(("ing", "ed"))
    return finite and verb.dep_ in ("conj", "ccomp", "advcl", "dep", "parataxis")


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
