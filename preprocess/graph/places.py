"""Repairs of attachment: whose place a preposition tells, and whose act a participle."""

from macco.preprocess.graph.lexicon import (
    ACTS,
    AIMED,
    ALIVE,
    ALONE,
    BODY,
    ESCORTING,
    PASSING,
    PLACES,
    PLACING,
    POSED,
    ROWS,
    SENDING,
)
from macco.preprocess.graph.words import Sentence, Word


def move_objects(sentence: Sentence) -> None:
    """In "a man puts a plate on the table" the plate is on it; so is "a stick in its mouth", "a ball into the goal"."""
    for verb in sentence.words:
        if not verb.is_verb or not verb.kids:
            continue
        thing = verb.kid("dobj")
        if thing is None or not thing.is_noun or thing.i < verb.i:
            continue
        prep = next((kid for kid in verb.kids if kid.i > thing.i and kid.dep_ == "prep"), None)
        place = prep.kid("pobj") if prep else None
        if prep and place and _takes_object(verb, prep, place):
            prep.attach(thing, "prep")


def _takes_object(verb: Word, prep: Word, place: Word) -> bool:
    form = prep.form
    if verb.lemma_ in PLACING and (form in PLACES or form in AIMED):
        return True
    if verb.lemma_ in SENDING and form in PASSING:
        return True
    if (
        (form in AIMED or (form == "out" and len(prep.parts) == 2))
        and len(prep.parts) < 3
        and (form, len(prep.parts)) != ("from", 2)
        and verb.lemma_ not in ("ride", "drive", "wear", "have", "play")
    ):
        return True
    held = form in PLACES or form in AIMED
    return held and place.lemma_ in BODY and len(prep.parts) == 1 and not place.kid("prep")


def seat_members(sentence: Sentence) -> None:
    """In "a row of bottles on a shelf" the bottles are on it, and in "pile of vases sitting in a yard" they sit."""
    for row in sentence.words:
        if row.form not in ROWS or not row.is_noun:
            continue
        of = next((kid for kid in row.kids if kid.form == "of" and kid.dep_ == "prep"), None)
        members = of.kid("pobj") if of else None
        if not of or not members or not members.is_noun:
            continue
        for kid in [kid for kid in row.kids if kid.i > members.i]:
            if kid.dep_ in ("prep", "acl", "relcl"):
                kid.attach(members, kid.dep_)


def seat_participles(sentence: Sentence) -> None:
    """In "a man wearing a hat holding an umbrella" no hat holds anything, as no leg wears a shirt in "legs of man ...".

    What only the living do is done by the nearest of them in front, or by who wears the thing; and in "a dog holding
    a frisbee standing on grass" it stands itself. But in "a boy catching a ball thrown by a girl" the ball is thrown,
    and in "a man holding a basket that holds fruit" the basket holds it.
    """
    for verb in sentence.words:
        thing = verb.head
        if verb.dep_ != "acl" or not thing.is_noun or verb.i < thing.i:
            continue
        before = sentence.words[verb.i - 1].standing
        if before.dep_ == "dobj" and before is not thing and before.is_noun and _is_done_to(verb):
            verb.attach(before, "acl")
            continue
        if thing.lemma_ in ALIVE:
            continue
        if not (verb.form.endswith("ing") or verb.form in POSED) or verb.kid("relative"):
            continue
        wearer = _wearer(thing)
        held = wearer and thing.head.lemma_ in ("hold", "carry") and verb.lemma_ in ALONE
        posed = wearer and verb.form in POSED
        if not (verb.lemma_ in ACTS or held or posed or (wearer and thing.head.lemma_ == "wear")):
            continue
        living = [word for word in sentence.words[: verb.i] if word.is_noun and word.lemma_ in ALIVE]
        top = _top(thing)
        actor = next((word for word in reversed(living) if word.within(top)), None)
        actor = actor or wearer
        if actor and actor is not verb:
            verb.attach(actor, "acl")


def join_limbs(sentence: Sentence) -> None:
    """In "a man on a bench with his legs crossed" the legs are the man's, and no bench has legs of his."""
    for prep in sentence.words:
        place, limb = prep.head, prep.kid("pobj")
        if prep.form != "with" or prep.dep_ != "prep" or limb is None or not place.is_noun:
            continue
        owner = limb.kid("poss")
        personal = owner is not None and owner.form in ("his", "her")
        if not personal and not (owner and owner.form in ("its", "their") and limb.lemma_ in BODY):
            continue
        living = (
            word for word in reversed(sentence.words[: place.i]) if word.is_noun and word.lemma_ in ALIVE
        )
        actor = next(living, None)
        if actor and place.lemma_ not in ALIVE and place.dep_ == "pobj":
            prep.attach(actor, "prep")


def _is_done_to(verb: Word) -> bool:
    """Whether a participle says what is done to the noun in front: "caught by", "made of"."""
    prep = next((kid for kid in verb.kids if kid.dep_ == "prep" and kid.i == verb.i + 1), None)
    form = prep.form if prep else ""
    done = (form == "by" and verb.lemma_ not in ESCORTING) or (form == "of" and verb.lemma_ == "make")
    return done and not verb.form.endswith("ing") and verb.form not in POSED and not verb.kid("relative")


def _top(noun: Word) -> Word:
    """The noun at the head of all that this one is part of, up to a verb with a subject."""
    word = top = noun
    while word.head is not word and not (word.is_verb and word.kid("nsubj", "nsubjpass")):
        word = word.head
        if word.is_noun:
            top = word
    return top


def _wearer(thing: Word) -> Word | None:
    """Who wears or holds this thing, in "a jockey wearing a cap"."""
    verb = thing.head
    if thing.dep_ != "dobj" or verb.lemma_ not in ACTS:
        return None
    subject = verb.head if verb.dep_ == "acl" else verb.kid("nsubj")
    return subject if subject and subject.is_noun else None
