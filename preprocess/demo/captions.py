"""Captions of a scene, as people write them, each with the concepts that a perfect parser finds in it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Concept, Span
from macco.preprocess.demo.icons import FRAME, NOUNS
from macco.preprocess.demo.scene import Scene, Thing

# relation -> its wordings as (words, head word, coarse part of speech of the head)
WORDS = {
    "left of": (("to the left of", "left", "NOUN"), ("on the left of", "left", "NOUN")),
    "right of": (("to the right of", "right", "NOUN"), ("on the right of", "right", "NOUN")),
    "above": (("above", "above", "ADP"), ("over", "over", "ADP")),
    "below": (("below", "below", "ADP"), ("beneath", "beneath", "ADP")),
    "on": (("on", "on", "ADP"), ("on top of", "top", "NOUN")),
    "under": (("under", "under", "ADP"), ("underneath", "underneath", "ADP")),
    "inside": (("inside", "inside", "ADP"), ("in", "in", "ADP"), ("within", "within", "ADP")),
    "behind": (("behind", "behind", "ADP"),),
    "in front of": (("in front of", "front", "NOUN"),),
    "next to": (("next to", "next", "ADV"), ("beside", "beside", "ADP")),
    "far from": (("far from", "far", "ADV"), ("far away from", "far", "ADV")),
}
# What a thing may be doing there: participle, third person, plural, lemma.
_SIT, _STAND, _LIE = (
    ("sitting", "sits", "sit", "sit"),
    ("standing", "stands", "stand", "stand"),
    ("lying", "lies", "lie", "lie"),
)
_HIDE = ("hiding", "hides", "hide", "hide")
_PLACED = ("placed", None, None, "place")
_VERBS = {
    "on": (_SIT, _STAND, _LIE, _PLACED),
    "inside": (_SIT, _STAND, _PLACED),
    "behind": (_HIDE, _STAND),
    "above": (("floating", "floats", "float", "float"),),
}
_DEFAULT_VERBS = (_SIT, _STAND, _PLACED)
_NUMBERS = {2: "two", 3: "three"}


Verb = tuple[str, str]  # as written, lemma
Finish = Callable[[int, int], None]  # to be called with the subject's and the object's place


@dataclass
class Caption:
    """Text that grows from left to right, and the concepts in it. References are places in `objects`."""

    text: str = ""
    objects: list[Concept] = field(default_factory=list)
    attributes: list[Concept] = field(default_factory=list)
    relations: list[Concept] = field(default_factory=list)

    def add(self, words: str) -> Span:
        """Append words after a space (or a comma without one); return where they stand."""
        if self.text and words != ",":
            self.text += " "
        start = len(self.text)
        self.text += words
        return Span(start, len(self.text))

    def describe(self, thing: Thing, rng: random.Random, article: str, *, colour: bool, size: bool) -> int:
        """Append a noun phrase; return its place in `objects`."""
        count = len(thing.boxes)
        names = ((FRAME, FRAME + "s"),) if thing.noun == FRAME else NOUNS[thing.noun].names
        name = rng.choice(names)[count > 1]
        adjectives = [word for word, said in ((thing.size, size), (thing.colour, colour)) if said]
        words = [*adjectives, name]
        if count > 1:
            first = _NUMBERS[count] if article == "a" else f"the {_NUMBERS[count]}"
        elif article == "a":
            first = "an" if words[0][0] in "aeiou" else "a"
        else:
            first = article
        start = self.add(first)
        owner = len(self.objects)
        phrase = " ".join(words)
        if count > 1:
            number = _NUMBERS[count]
            span = Span(start.end - len(number), start.end)
            self.attributes.append(Concept(ATTRIBUTE, (span,), number, span, "NUM", phrase, owner=owner))
        for word in adjectives:
            span = self.add(word)
            self.attributes.append(Concept(ATTRIBUTE, (span,), word, span, "ADJ", phrase, owner=owner))
        head = self.add(name)
        lemma = names[[pair[count > 1] for pair in names].index(name)][0]
        self.objects.append(Concept(OBJECT, (Span(start.start, head.end),), lemma, head, "NOUN", phrase))
        return owner

    def predicate(self, thing: Thing, owner: int, word: str) -> None:
        """Append "is red": an attribute after the copula."""
        self.add("are" if len(thing.boxes) > 1 else "is")
        span = self.add(word)
        phrase = f"{word} {self.objects[owner].phrase}"
        self.attributes.append(Concept(ATTRIBUTE, (span,), word, span, "ADJ", phrase, owner=owner))
        self.attributes = [a._replace(phrase=phrase) if a.owner == owner else a for a in self.attributes]
        self.objects[owner] = self.objects[owner]._replace(phrase=phrase)

    def relate(
        self, relation: str, rng: random.Random, verb: tuple[str, str] | None = None
    ) -> Callable[[int, int], None]:
        """Append relation words, after (verb, lemma) if given; call the result with subject and object."""
        words, core, pos = rng.choice(WORDS[relation])
        start = self.add(verb[0]) if verb else None
        span = self.add(words)
        place = span.start + words.index(core)
        head, lemma = Span(place, place + len(core)), words
        if start is not None and verb is not None:
            head, lemma, pos, span = start, f"{verb[1]} {words}", "VERB", Span(start.start, span.end)

        def finish(subject: int, object_: int) -> None:
            self.relations.append(
                Concept(RELATION, (span,), lemma, head, pos, subject=subject, object=object_)
            )

        return finish

    def concepts(self) -> list[Concept]:
        """Objects, attributes, relations, each by position; references in place."""
        order = sorted(range(len(self.objects)), key=lambda i: self.objects[i].spans[0].start)
        place = {old: new for new, old in enumerate(order)}

        def moved(concept: Concept) -> Concept:
            subject, object_, owner = (
                None if end is None else place[end]
                for end in (concept.subject, concept.object, concept.owner)
            )
            return concept._replace(subject=subject, object=object_, owner=owner)

        by_place = sorted(self.attributes, key=lambda c: c.spans[0].start)
        relations = sorted(self.relations, key=lambda c: c.spans[0].start)
        return [*(self.objects[i] for i in order), *map(moved, by_place), *map(moved, relations)]


def captions(scene: Scene, rng: random.Random, count: int = 5) -> list[tuple[str, list[Concept]]]:
    """Write `count` different captions of a scene, each with its concepts."""
    written: dict[str, list[Concept]] = {}
    said: set[str] = set()
    while len(written) < count:
        caption = _write(scene, rng)
        text = caption.text
        if text in said:
            continue
        said.add(text)
        if rng.random() < 0.85:
            text = text[0].upper() + text[1:]
        if rng.random() < 0.8:
            text += "."
        written[text] = caption.concepts()
    return list(written.items())


def _write(scene: Scene, rng: random.Random) -> Caption:
    caption = Caption()
    relations = scene.relations
    forms: list[Callable[[Caption, Scene, random.Random], None]] = [_listing, _predicates]
    if relations:
        forms += [_phrase, _phrase, _copula, _existential, _relative, _verb, _two_relations]
    rng.choice(forms)(caption, scene, rng)
    return caption


def _say(
    caption: Caption, scene: Scene, place: int, rng: random.Random, article: str = "a", plain: bool = False
) -> int:
    """Describe a thing well enough to tell it from another of the same noun."""
    thing = scene.things[place]
    same = sum(other.noun == thing.noun for other in scene.things) > 1
    size = thing.size != "medium" and rng.random() < 0.4
    return caption.describe(thing, rng, article, colour=same or rng.random() < 0.8, size=size)


def _choose(scene: Scene, rng: random.Random) -> tuple[int, str, int]:
    """A relation that holds: rare kinds as often as common ones."""
    kind = rng.choice(sorted({relation for _, relation, _ in scene.relations}))
    return rng.choice([triple for triple in scene.relations if triple[1] == kind])


def _be(scene: Scene, place: int) -> str:
    return "are" if len(scene.things[place].boxes) > 1 else "is"


def _doing(relation: str, rng: random.Random, share: float) -> Verb | None:
    """A participle and its lemma, or nothing."""
    if rng.random() >= share:
        return None
    participle, _, _, lemma = rng.choice(_VERBS.get(relation, _DEFAULT_VERBS))
    return participle, lemma


def _phrase(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """A red dog (sitting) on a blue sofa"""
    a, relation, b = _choose(scene, rng)
    subject = _say(caption, scene, a, rng)
    finish = caption.relate(relation, rng, _doing(relation, rng, 0.4))
    finish(subject, _say(caption, scene, b, rng))


def _copula(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """The red dog is (sitting) on a blue sofa"""
    a, relation, b = _choose(scene, rng)
    article = rng.choice(("a", "the"))
    subject = _say(caption, scene, a, rng, article)
    caption.add(_be(scene, a))
    finish = caption.relate(relation, rng, _doing(relation, rng, 0.4))
    finish(subject, _say(caption, scene, b, rng, article))


def _existential(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """There is a red dog on a blue sofa"""
    a, relation, b = _choose(scene, rng)
    caption.add("there")
    caption.add(_be(scene, a))
    subject = _say(caption, scene, a, rng)
    finish = caption.relate(relation, rng, _doing(relation, rng, 0.2))
    finish(subject, _say(caption, scene, b, rng))


def _relative(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """A red dog that is on a blue sofa"""
    a, relation, b = _choose(scene, rng)
    subject = _say(caption, scene, a, rng)
    caption.add(rng.choice(("that", "which")))
    caption.add(_be(scene, a))
    finish = caption.relate(relation, rng, _doing(relation, rng, 0.3))
    finish(subject, _say(caption, scene, b, rng))


def _verb(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """A red dog sits on a blue sofa"""
    a, relation, b = _choose(scene, rng)
    subject = _say(caption, scene, a, rng, rng.choice(("a", "the")))
    verbs = [verb for verb in _VERBS.get(relation, _DEFAULT_VERBS) if verb[1]]
    _, singular, plural, lemma = rng.choice(verbs)
    word = plural if len(scene.things[a].boxes) > 1 else singular
    finish = caption.relate(relation, rng, (word or "", lemma))
    finish(subject, _say(caption, scene, b, rng))


def _two_relations(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """A red dog is on a blue sofa and a cat is under a lamp; or two phrases joined by "and" """
    first, second = _choose(scene, rng), _choose(scene, rng)
    if len({first[0], first[2], second[0], second[2]}) < 4:
        _phrase(caption, scene, rng)
        return
    copula = rng.random() < 0.5
    for number, (a, relation, b) in enumerate((first, second)):
        if number:
            caption.add("and")
        subject = _say(caption, scene, a, rng)
        if copula:
            caption.add(_be(scene, a))
        finish = caption.relate(relation, rng)
        finish(subject, _say(caption, scene, b, rng))


def _listing(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """A large red dog, a blue sofa and a cat"""
    places = rng.sample(range(len(scene.things)), rng.randint(2, len(scene.things)))
    if rng.random() < 0.2:
        caption.add("there")
        caption.add("is" if len(scene.things[places[0]].boxes) == 1 else "are")
    for number, place in enumerate(places):
        if number:
            caption.add("and" if number == len(places) - 1 else ",")
        _say(caption, scene, place, rng)


def _predicates(caption: Caption, scene: Scene, rng: random.Random) -> None:
    """The dog is red and the sofa is large"""
    nouns = [thing.noun for thing in scene.things]
    places = [place for place, noun in enumerate(nouns) if nouns.count(noun) == 1]
    if not places:
        _phrase(caption, scene, rng) if scene.relations else _listing(caption, scene, rng)
        return
    for number, place in enumerate(rng.sample(places, rng.randint(1, min(2, len(places))))):
        thing = scene.things[place]
        if number:
            caption.add("and")
        large_or_small = thing.size != "medium" and rng.random() < 0.4
        owner = caption.describe(thing, rng, "the", colour=False, size=False)
        caption.predicate(thing, owner, thing.size if large_or_small else thing.colour)
