"""A drawn scene: things of one noun, colour and size each, and what is true of their places."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from macco.preprocess.demo.icons import COLOURS, FRAME, NOUNS, mask

SIDE: Final = 128  # pixels
SIZES: Final = {"small": 20, "medium": 31, "large": 44}  # pixels of a pictogram's longer side
FRAME_SIDE: Final = (58, 70)
MARGIN: Final = 2
RELATIONS: Final = (
    "left of", "right of", "above", "below", "on", "under", "inside", "behind", "in front of", "next to", "far from",
)  # fmt: skip
HELD_OUT: Final = 10  # one in so many colour-noun pairs, and one in so many noun pairs, is never in training

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


@dataclass(frozen=True)
class Thing:
    """One noun phrase's worth of a scene: one pictogram, or several equal ones side by side."""

    noun: str
    colour: str
    size: str  # a key of SIZES
    boxes: tuple[Box, ...]

    @cached_property
    def box(self) -> Box:
        """Around all of it."""
        x0, y0, x1, y1 = zip(*self.boxes, strict=True)
        return min(x0), min(y0), max(x1), max(y1)

    def at(self, x: float, y: float) -> "Thing":
        """The same elsewhere: its box's corner at the pixel nearest to (x, y)."""
        dx, dy = round(x) - self.box[0], round(y) - self.box[1]
        boxes = tuple((x0 + dx, y0 + dy, x1 + dx, y1 + dy) for x0, y0, x1, y1 in self.boxes)
        return replace(self, boxes=boxes)


@dataclass(frozen=True)
class Scene:
    """Things in drawing order, back to front. `noise` seeds the background's texture and the colours' jitter."""

    things: tuple[Thing, ...]
    noise: int

    @cached_property
    def relations(self) -> tuple[tuple[int, str, int], ...]:
        """All (subject, relation, object) that hold, as places in `things`."""
        pairs = permutations(range(len(self.things)), 2)
        return tuple(
            (a, relation, b)
            for a, b in pairs
            for relation in _relations(self.things[a], self.things[b], a < b)
        )

    @property
    def held_out(self) -> dict[str, list[str]]:
        """The colour-noun pairs and noun pairs of this scene that training never shows."""
        return held_out([(thing.colour, thing.noun) for thing in self.things])

    def draw(self) -> Image.Image:
        """Render the scene: RGB, SIDE x SIDE."""
        rng = np.random.default_rng(self.noise)
        base = rng.integers(85, 165) + rng.normal(0, 10, 3)
        coarse = np.clip(base + rng.normal(0, 12, (9, 9, 3)), 0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 7, (SIDE, SIDE, 1)).astype(np.float32)
        for thing in self.things:
            colour = tuple(
                np.clip(np.add(COLOURS[thing.colour], rng.normal(0, 10, 3)), 0, 255).astype(int).tolist()
            )
            for x0, y0, x1, y1 in thing.boxes:
                ink = mask(thing.noun, round(max(x1 - x0, y1 - y0)))
                image.paste(colour, (round(x0), round(y0)), ink)
        pixels: NDArray[np.float32] = np.asarray(image, np.float32) + grain
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def held_out(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Of (colour, noun) pairs that are shown together, those that are kept for the test split."""
    nouns = [noun for _, noun in pairs]
    return {
        "colour_noun": sorted({f"{colour} {noun}" for colour, noun in pairs if _kept(f"{colour} {noun}")}),
        "noun_pair": sorted(
            {f"{a}+{b}" for a, b in combinations(sorted(set(nouns)), 2) if _kept(f"{a}+{b}")}
        ),
    }


def _kept(pair: str) -> bool:
    return hashlib.blake2b(pair.encode(), digest_size=4).digest()[0] % HELD_OUT == 0


def random_scene(rng: random.Random, split: str = "train") -> Scene:
    """Draw the contents of a scene; the test split's hold a held-out pair, the others' none."""
    while True:
        wanted = rng.choice(RELATIONS)
        kinds = _kinds(rng, rng.randint(2, 4), wanted)
        things = _place(rng, kinds, wanted)
        if things is not None and bool(_pairs(things)) == (split == "test"):
            return Scene(tuple(things), rng.randrange(2**31))


def _pairs(things: list[Thing]) -> list[str]:
    return [
        pair
        for pairs in held_out([(thing.colour, thing.noun) for thing in things]).values()
        for pair in pairs
    ]


Kind = tuple[str, str, str, int]  # noun, colour, size, count


def _kinds(rng: random.Random, count: int, wanted: str) -> list[Kind]:
    nouns = rng.sample(list(NOUNS), count)
    colours = [rng.choice(list(COLOURS)) for _ in nouns]
    if rng.random() < 0.1 and wanted != "inside":  # the same noun twice, in two colours
        nouns[1] = nouns[0]
        colours[:2] = rng.sample(list(COLOURS), 2)
    sizes = rng.choices(list(SIZES), (1, 2, 1), k=count)
    counts = [rng.choice((2, 2, 3)) if rng.random() < 0.12 and size != "large" else 1 for size in sizes]
    counts = [2 if many == 3 and size == "medium" else many for many, size in zip(counts, sizes, strict=True)]
    if wanted in ("inside", "behind", "in front of"):
        counts[:2] = [1, 1]
    if wanted == "inside":
        nouns[1], sizes[1] = FRAME, "medium"
        sizes[0] = "medium" if sizes[0] == "large" else sizes[0]
    if nouns[0] == nouns[1]:
        counts[:2] = [1, 1]
    return list(zip(nouns, colours, sizes, counts, strict=True))


def _extent(rng: random.Random, kind: Kind) -> list[tuple[float, float]]:
    """Width and height of each pictogram of a kind."""
    noun, _, size, count = kind
    side = rng.randint(*FRAME_SIDE) if noun == FRAME else SIZES[size] + rng.randint(-2, 2)
    ink = mask(noun, side)
    return [(float(ink.width), float(ink.height))] * count


def thing_of(rng: random.Random, colour: str, noun: str) -> Thing:
    """One thing of some size, in the image's corner."""
    size = rng.choices(list(SIZES), (1, 2, 1))[0]
    ((width, height),) = _extent(rng, (noun, colour, size, 1))
    return Thing(noun, colour, size, ((0.0, 0.0, width, height),))


def _place(rng: random.Random, kinds: list[Kind], wanted: str) -> list[Thing] | None:
    """Put the first two things so that the relation holds, and the others where there is room."""
    extents = [_extent(rng, kind) for kind in kinds]
    blocks = [(sum(w for w, _ in many) + 3 * (len(many) - 1), many[0][1]) for many in extents]
    for _ in range(20):
        pair = arrange(rng, blocks[0], blocks[1], wanted)
        if pair is not None:
            break
    else:
        return None
    corners = list(pair)
    for width, height in blocks[2:]:
        for _ in range(30):
            x, y = rng.uniform(MARGIN, SIDE - MARGIN - width), rng.uniform(MARGIN, SIDE - MARGIN - height)
            box = (x, y, x + width, y + height)
            others = [(ox, oy, ox + w, oy + h) for (ox, oy), (w, h) in zip(corners, blocks, strict=False)]
            if all(gap_between(box, other) >= 3 for other in others):
                corners.append((x, y))
                break
        else:
            break
    things = []
    for (noun, colour, size, _), many, (x, y) in zip(kinds, extents, corners, strict=False):
        boxes = []
        for width, height in many:
            boxes.append((float(round(x)), float(round(y)), round(x) + width, round(y) + height))
            x += width + 3
        things.append(Thing(noun, colour, size, tuple(boxes)))
    if wanted in ("inside", "in front of"):  # the second one is drawn first
        things[:2] = things[1::-1]
    first, second = (1, 0) if wanted in ("inside", "in front of") else (0, 1)
    if wanted not in _relations(things[first], things[second], first < second):
        return None
    return things


Point = tuple[float, float]


def arrange(rng: random.Random, first: Point, second: Point, wanted: str) -> tuple[Point, Point] | None:
    """Corners of two blocks in the relation, or None where they do not fit the image."""
    (wa, ha), (wb, hb) = first, second
    across, down = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)
    middle_x, middle_y = (wa - wb) / 2 + across * min(wa, wb), (ha - hb) / 2 + down * min(ha, hb)
    gap = rng.uniform(10, 34)
    overlap = rng.uniform(0.25, 0.45)
    place = {
        "left of": (wa + gap, middle_y),
        "right of": (-wb - gap, middle_y),
        "above": (middle_x, ha + gap),
        "below": (middle_x, -hb - gap),
        "on": (middle_x, ha),
        "under": (middle_x, -hb),
        "inside": (wa / 2 - wb / 2 + across * 8, ha / 2 - hb / 2 + down * 8),
        "behind": (wa * (1 - overlap) if across > 0 else wa * overlap - wb, middle_y),
        "in front of": (wa - wb * overlap if across > 0 else -wb * (1 - overlap), middle_y),
        "next to": (wa + rng.uniform(2, 7) if across > 0 else -wb - rng.uniform(2, 7), middle_y / 3),
        "far from": (
            rng.choice((-1, 1)) * rng.uniform(50, 90) + (wa - wb) / 2,
            rng.choice((-1, 1)) * rng.uniform(50, 90) + (ha - hb) / 2,
        ),
    }
    dx, dy = place[wanted]
    left, top = min(0, dx), min(0, dy)
    width, height = max(wa, dx + wb) - left, max(ha, dy + hb) - top
    room_x, room_y = SIDE - 2 * MARGIN - width, SIDE - 2 * MARGIN - height
    if room_x < 0 or room_y < 0:
        return None
    x, y = MARGIN + rng.uniform(0, room_x) - left, MARGIN + rng.uniform(0, room_y) - top
    return (x, y), (x + dx, y + dy)


def _relations(a: Thing, b: Thing, a_is_behind: bool) -> Iterator[str]:
    """What is true of a with respect to b; borderline cases are neither true nor stated."""
    ax0, ay0, ax1, ay1 = a.box
    bx0, by0, bx1, by1 = b.box
    dx, dy = (bx0 + bx1 - ax0 - ax1) / 2, (by0 + by1 - ay0 - ay1) / 2
    side_gap, height_gap = max(bx0 - ax1, ax0 - bx1), max(by0 - ay1, ay0 - by1)
    if side_gap >= 2 and abs(dy) < 0.5 * abs(dx):
        yield "left of" if dx > 0 else "right of"
    if height_gap >= 6 and abs(dx) < 0.5 * abs(dy):
        yield "above" if dy > 0 else "below"
    if abs(by0 - ay1) <= 1.5 and abs(dx) < (bx1 - bx0) / 2:
        yield "on"
    if abs(ay0 - by1) <= 1.5 and abs(dx) < (ax1 - ax0) / 2:
        yield "under"
    if b.noun == FRAME and ax0 > bx0 + 3 and ay0 > by0 + 3 and ax1 < bx1 - 3 and ay1 < by1 - 3:
        yield "inside"
    elif a.noun != FRAME and b.noun != FRAME and common_area(a.box, b.box) > 20:
        yield "behind" if a_is_behind else "in front of"
    if 0 < side_gap <= 9 and abs(dy) < 8:
        yield "next to"
    if gap_between(a.box, b.box) >= 40:
        yield "far from"


def gap_between(a: Box, b: Box) -> float:
    """Pixels between two boxes; 0 where they meet."""
    across, down = max(b[0] - a[2], a[0] - b[2], 0), max(b[1] - a[3], a[1] - b[3], 0)
    return float((across**2 + down**2) ** 0.5)


def common_area(a: Box, b: Box) -> float:
    """Square pixels that lie in both."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
