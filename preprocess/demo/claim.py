"""What a caption of the demo benchmark claims, whether a scene makes it true, and its words."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from macco.preprocess.demo.captions import Caption
from macco.preprocess.demo.icons import NOUNS
from macco.preprocess.demo.scene import Scene, Thing, common_area, gap_between

Name = tuple[str, str]  # colour, noun

FORMS: Final = ("phrase", "copula", "definite", "relative")


@dataclass(frozen=True)
class Claim:
    """Things that are in the picture; with a relation, two of them, and how the first stands to the second."""

    names: tuple[Name, ...]
    relation: str | None = None

    def true_of(self, scene: Scene) -> bool:
        """Whether it is plainly true: its relation holds as the corpus's captions use the word."""
        return self._holds(scene, lambda a, relation, b: (a, relation, b) in scene.relations)

    def arguable_of(self, scene: Scene) -> bool:
        """Whether somebody might call it true. What is not arguable is plainly false."""
        things = scene.things
        return self._holds(scene, lambda a, relation, b: _arguable(things[a], relation, things[b], a < b))

    def _holds(self, scene: Scene, related: Callable[[int, str, int], bool]) -> bool:
        places = [[i for i, thing in enumerate(scene.things) if _is(thing, name)] for name in self.names]
        if self.relation is None or not all(places):
            return all(places)
        return any(related(a, self.relation, b) for a in places[0] for b in places[1] if a != b)


@dataclass(frozen=True)
class Style:
    """How claims are worded: equal things and relations get equal words in all captions of one style."""

    form: str  # one of FORMS
    salt: str  # chooses among synonyms

    def write(self, claim: Claim) -> Caption:
        """The claim in lower case, without a full stop; a claim without a relation is a list."""
        caption = Caption()
        article = "the" if self.form == "definite" and claim.relation else "a"
        things = [Thing(noun, colour, "medium", ((0.0, 0.0, 1.0, 1.0),)) for colour, noun in claim.names]

        def say(thing: Thing) -> int:
            return caption.describe(thing, self._rng(thing.noun), article, colour=True, size=False)

        if claim.relation is None:
            for number, thing in enumerate(things):
                if number:
                    caption.add("and" if number == len(things) - 1 else ",")
                say(thing)
            return caption
        subject = say(things[0])
        if self.form != "phrase":
            caption.add("that is" if self.form == "relative" else "is")
        finish = caption.relate(claim.relation, self._rng(claim.relation))
        finish(subject, say(things[1]))
        return caption

    def _rng(self, word: str) -> random.Random:
        return random.Random(f"{self.salt}/{word}")


def kin(a: str, b: str) -> bool:
    """Whether one noun may be said of what the other names: equal, or "tree" of a palm tree."""
    names = [{singular for singular, _ in NOUNS[noun].names} for noun in (a, b)]
    return any(x == y or x.endswith(f" {y}") or y.endswith(f" {x}") for x in names[0] for y in names[1])


def _is(thing: Thing, name: Name) -> bool:
    return thing.colour == name[0] and kin(thing.noun, name[1])


def _arguable(a: Thing, relation: str, b: Thing, a_is_behind: bool) -> bool:
    """Much wider than the rules of scene.py: within 56 degrees of the direction, with or without a gap."""
    ax0, ay0, ax1, ay1 = a.box
    bx0, by0, bx1, by1 = b.box
    dx, dy = (bx0 + bx1 - ax0 - ax1) / 2, (by0 + by1 - ay0 - ay1) / 2
    across, down = abs(dy) < 1.5 * abs(dx), abs(dx) < 1.5 * abs(dy)
    gap = gap_between(a.box, b.box)
    return {
        "left of": across and dx > 0,
        "right of": across and dx < 0,
        "above": down and dy > 0,
        "on": down and dy > 0,
        "below": down and dy < 0,
        "under": down and dy < 0,
        "behind": a_is_behind and common_area(a.box, b.box) > 0,
        "in front of": not a_is_behind and common_area(a.box, b.box) > 0,
        "next to": gap <= 16 and across,
        "far from": gap >= 30,
    }[relation]
