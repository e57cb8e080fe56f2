"""A base scene of the demo benchmark with its changes, each drawn again with one thing different."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from macco.preprocess.demo.claim import FORMS, Claim, Name, Style, kin
from macco.preprocess.demo.icons import COLOURS, NOUNS, mask
from macco.preprocess.demo.scene import (
    MARGIN,
    SIDE,
    Point,
    Scene,
    Thing,
    arrange,
    gap_between,
    held_out,
    thing_of,
)

SEEN, HELD_OUT = "seen", "held_out"
DIRECTED: Final = ("left of", "right of", "above", "below", "on", "under", "behind", "in front of")
SYMMETRIC: Final = ("next to", "far from")  # only put in the place of another: swapped, they stay true
ALIKE: Final = ({"on", "above"}, {"under", "below"}, *({relation} for relation in DIRECTED))
GAP: Final = 3  # pixels at least between a thing that no caption relates and any other
TRIES: Final = 20

Pair = tuple[Thing, Thing]


@dataclass(frozen=True)
class Change:
    """A scene beside the base: what is claimed of the base, and what of this one instead."""

    scene: Scene
    before: Claim
    after: Claim


@dataclass(frozen=True)
class Case:
    """A base scene and its changes by kind.

    `claim` and every `before` is plainly true of the base, `after` of the changed scene and not even
    arguable of the base; but for object_add, which leaves `before` true, `before` is not arguable of the
    changed scene either. Colours and nouns of the two related things differ.
    """

    base: Scene
    claim: Claim
    changes: dict[str, Change]
    style: Style


def draw_case(rng: random.Random, group: str) -> Case:
    """Draw until a scene supports every change.

    seen: neither the base nor a changed scene shows a pair that is held out of training. held_out: in each
    of them the two things that the base caption relates, or those that replace them, make at least one
    such pair: a colour-noun pair of one of them, or their two nouns.
    """
    while True:
        plan = _Plan.draw(rng)
        if plan.allowed(group) and (case := plan.carry_out(rng)) is not None:
            return case


@dataclass(frozen=True)
class _Plan:
    """Names alone, so that most draws end before anything is placed."""

    relation: str
    pair: tuple[Name, Name]
    recoloured: tuple[Name, Name]
    renamed: tuple[Name, Name]
    added: Name
    bystander: Name | None  # in every scene, in no caption

    @classmethod
    def draw(cls, rng: random.Random) -> "_Plan":
        first, second, other, added, bystander = rng.sample(list(NOUNS), 5)
        a, b, fresh = rng.sample(list(COLOURS), 3)
        pair = ((a, first), (b, second))
        return cls(
            relation=rng.choice(DIRECTED),
            pair=pair,
            recoloured=rng.choice([((fresh, first), pair[1]), (pair[0], (fresh, second))]),
            renamed=rng.choice([((a, other), pair[1]), (pair[0], (b, other))]),
            added=(rng.choice(list(COLOURS)), added),
            bystander=(rng.choice(list(COLOURS)), bystander) if rng.random() < 0.3 else None,
        )

    @property
    def swapped(self) -> tuple[Name, Name]:
        (a, first), (b, second) = self.pair
        return (b, first), (a, second)

    def allowed(self, group: str) -> bool:
        """Whether a group may hold these scenes, and no noun may be said of two things."""
        named: list[tuple[Name, ...]] = [self.pair, self.swapped, self.recoloured, self.renamed]
        if group == HELD_OUT:
            if not all(map(_held, named)):
                return False
        else:
            rest = () if self.bystander is None else (self.bystander,)
            if any(_held((*names, *rest)) for names in [*named, (*self.pair, self.added)]):
                return False
        nouns = {noun for names in named for _, noun in names} | {self.added[1]}
        nouns |= set() if self.bystander is None else {self.bystander[1]}
        return not any(kin(x, y) for x, y in combinations(sorted(nouns), 2))

    def carry_out(self, rng: random.Random) -> Case | None:
        """Place everything; None where something has no room, or a caption would not be plainly right."""
        pair = _settle(rng, thing_of(rng, *self.pair[0]), thing_of(rng, *self.pair[1]), self.relation)
        if pair is None:
            return None
        rest: tuple[Thing, ...] = ()
        if self.bystander is not None:
            found = _room(rng, thing_of(rng, *self.bystander), pair)
            if found is None:
                return None
            rest = (found,)
        stage = _Stage(rest, rng.randrange(2**31))
        base = stage.scene(pair, self.relation)
        added = _room(rng, thing_of(rng, *self.added), base.things)
        renamed = self._renamed(stage, pair)
        swapped = stage.moved(rng, base, pair, pair[::-1], [self.relation])
        others = [
            relation
            for relation in (*DIRECTED, *SYMMETRIC)
            if not any({relation, self.relation} <= alike for alike in ALIKE)
        ]
        replaced = stage.moved(rng, base, pair, pair, rng.sample(others, len(others)))
        if added is None or renamed is None or swapped is None or replaced is None:
            return None

        def related(names: tuple[Name, Name], relation: str = self.relation) -> Claim:
            return Claim(names, relation)

        def painted(names: tuple[Name, Name]) -> Scene:
            a, b = (replace(thing, colour=colour) for thing, (colour, _) in zip(pair, names, strict=True))
            return stage.scene((a, b), self.relation)

        claim = related(self.pair)
        added_to = Scene((*base.things, added), stage.noise)
        changes = {
            "attribute_swap": Change(painted(self.swapped), claim, related(self.swapped)),
            "relation_swap": Change(swapped[0], claim, related(self.pair[::-1])),
            "relation_replace": Change(replaced[0], claim, related(self.pair, replaced[1])),
            "attribute_replace": Change(painted(self.recoloured), claim, related(self.recoloured)),
            "object_replace": Change(renamed, claim, related(self.renamed)),
            "object_add": Change(added_to, Claim(self.pair), Claim((*self.pair, self.added))),
        }
        case = Case(base, claim, changes, Style(rng.choice(FORMS), str(rng.getrandbits(32))))
        return case if _sound(case) else None

    def _renamed(self, stage: "_Stage", pair: Pair) -> Scene | None:
        """The new thing stands where the old one stood: about its middle, or on its bottom or top edge."""
        place = 0 if self.renamed[0] != self.pair[0] else 1
        colour, noun = self.renamed[place]
        x0, y0, x1, y1 = pair[place].box
        ink = mask(noun, round(max(x1 - x0, y1 - y0)))
        x = (x0 + x1 - ink.width) / 2
        for y in ((y0 + y1 - ink.height) / 2, y1 - ink.height, y0):
            new = Thing(noun, colour, pair[place].size, ((0, 0, ink.width, ink.height),)).at(x, y)
            both = (new, pair[1]) if place == 0 else (pair[0], new)
            scene = stage.scene(both, self.relation)
            if Claim(self.renamed, self.relation).true_of(scene) and stage.has_room(both):
                return scene
        return None


@dataclass(frozen=True)
class _Stage:
    """What all scenes of a case share."""

    rest: tuple[Thing, ...]
    noise: int

    def scene(self, pair: Pair, relation: str, back: str | None = None) -> Scene:
        """The two things, the one whose noun is `back` first where the relation does not decide, and the rest.

        The drawing order matters for more than depth: a colour's jitter goes with the place in it.
        """
        if relation == "in front of" or (relation != "behind" and pair[1].noun == back):
            pair = pair[::-1]
        return Scene((*pair, *self.rest), self.noise)

    def has_room(self, pair: Pair) -> bool:
        """Whether two things lie in the image and clear of the rest."""
        return all(
            MARGIN <= min(thing.box) <= max(thing.box) <= SIDE - MARGIN and _clear(thing, self.rest)
            for thing in pair
        )

    def moved(
        self, rng: random.Random, base: Scene, old: Pair, new: Pair, relations: list[str]
    ) -> tuple[Scene, str] | None:
        """The scene with `new` for `old`, in the first of these relations that can be and leaves no doubt."""
        for relation in relations:
            for _ in range(TRIES):
                pair = _settle(rng, *new, relation, _middle(old))
                if pair is None or not self.has_room(pair):
                    continue
                scene = self.scene(pair, relation, base.things[0].noun)
                claim = Claim(tuple((thing.colour, thing.noun) for thing in new), relation)
                if claim.true_of(scene) and not claim.arguable_of(base):
                    return scene, relation
        return None


def _sound(case: Case) -> bool:
    return all(
        change.before.true_of(case.base)
        and change.after.true_of(change.scene)
        and not change.after.arguable_of(case.base)
        and (kind == "object_add" or not change.before.arguable_of(change.scene))
        for kind, change in case.changes.items()
    )


def _held(names: Sequence[Name]) -> bool:
    return any(held_out(list(names)).values())


def _middle(pair: Pair) -> Point:
    x0, y0, x1, y1 = zip(*(thing.box for thing in pair), strict=True)
    return (min(x0) + max(x1)) / 2, (min(y0) + max(y1)) / 2


def _settle(
    rng: random.Random, first: Thing, second: Thing, relation: str, middle: Point | None = None
) -> Pair | None:
    """Two things in a relation, about a point of the image if one is given; None where there is no room."""
    extents = [(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]) for thing in (first, second)]
    corners = arrange(rng, extents[0], extents[1], relation)
    if corners is None:
        return None
    pair = first.at(*corners[0]), second.at(*corners[1])
    if middle is None:
        return pair
    here = _middle(pair)
    dx, dy = (round(to - at) for to, at in zip(middle, here, strict=True))
    a, b = (thing.at(thing.box[0] + dx, thing.box[1] + dy) for thing in pair)
    return a, b


def _room(rng: random.Random, thing: Thing, others: Sequence[Thing]) -> Thing | None:
    """A place where a thing is clear of all others."""
    _, _, width, height = thing.box
    for _ in range(TRIES):
        x, y = rng.uniform(MARGIN, SIDE - MARGIN - width), rng.uniform(MARGIN, SIDE - MARGIN - height)
        if _clear(placed := thing.at(x, y), others):
            return placed
    return None


def _clear(thing: Thing, others: Sequence[Thing]) -> bool:
    return all(gap_between(thing.box, other.box) >= GAP for other in others)
