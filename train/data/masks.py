"""Which tokens and patches of a sample are masked."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from macco.pipeline import rectangle
from macco.pipeline.patches import any_of, touched
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION
from macco.pipeline.tokens import Tokens
from macco.train.config import MaskConfig

# Words that say little by themselves. Of "sitting on" remains "sitting", of "to the left of" "left"; "behind" stays.
FUNCTION_WORDS: Final = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "of",
        "in",
        "on",
        "at",
        "to",
        "with",
        "without",
        "by",
        "for",
        "from",
        "as",
        "into",
        "onto",
        "upon",
        "off",
        "out",
        "up",
        "about",
        "than",
        "and",
        "or",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "it",
        "its",
    ]
)


def masked_kinds(config: MaskConfig) -> tuple[str, ...]:
    """The kinds of concepts that count."""
    switches = (
        (OBJECT, config.objects),
        (ATTRIBUTE, config.attributes),
        (RELATION, config.relations != "none"),
    )
    return tuple(kind for kind, on in switches if on)


class Grounded(NamedTuple):
    """A concept of a sample: its words and its boxes."""

    kind: str
    phrase: int  # concepts of equal `phrase` are drawn as one: an object with its attributes
    spans: tuple[tuple[int, int], ...]  # characters [start, end) of the caption
    head: tuple[int, int]
    boxes: NDArray[np.float32]  # [K, 4]: x0, y0, x1, y1 in 0..1 of the original image


class Crop(NamedTuple):
    """What torchvision's RandomResizedCrop cuts out: pixels of an image of `width` x `height`."""

    top: int
    left: int
    height: int
    width: int
    image_width: int
    image_height: int


class Drawn(NamedTuple):
    """What of a sample is to be masked; `masks` makes it of a whole batch at once."""

    tokens: Tokens
    spans: list[tuple[int, int]]  # tokens that share a character with any of these are masked
    boxes: Sequence[
        NDArray[np.float32]
    ]  # [K, 4] each: patches that share any area with any of these are masked
    crop: Crop
    some: NDArray[np.bool_] | None = None  # [L]: the tokens, drawn at random
    rectangle: NDArray[np.bool_] | None = None  # [P]: the patches, drawn at random


def draw(
    concepts: Sequence[Grounded],
    caption: str,
    tokens: Tokens,
    crop: Crop,
    grid: int,
    config: MaskConfig,
    random: np.random.Generator,
) -> Drawn:
    """Draw what is masked of one sample.

    A patch is masked if it shares any area with a box. A box outside the crop masks nothing, and a sample
    without boxes has no patch masked, but for the rectangle's chance.
    """
    if config.random:
        some = _some_tokens(tokens, config.text_ratio, random)
        return Drawn(tokens, [], [], crop, some, _rectangle(grid, config.image_ratio, random))
    kinds = masked_kinds(config)
    phrases: dict[int, list[Grounded]] = defaultdict(list)
    words: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for concept in concepts:
        if tokens.beyond(concept.spans):  # the model does not read it: neither words nor boxes are masked
            continue
        if concept.kind in kinds and (spans := _words(concept, caption, config)):
            phrases[concept.phrase].append(concept)
            words[concept.phrase] += spans
    seen = [phrase for phrase, members in phrases.items() if any(len(c.boxes) for c in members)]
    # Both are drawn always, so that what one switch does leaves the other draws as they were.
    choice, by_chance = random.random(), random.random() < config.rectangle
    drawn = seen or (list(phrases) if config.same else [])
    phrase = drawn[int(choice * len(drawn))] if drawn else None
    masked = [phrase] if config.same and phrase is not None else list(words)
    text = [span for each in masked for span in words[each]]
    if by_chance:
        return Drawn(tokens, text, [], crop, rectangle=_rectangle(grid, config.image_ratio, random))
    boxes = [c.boxes for c in phrases[phrase]] if phrase is not None else []
    if config.random_boxes and boxes:  # the last that is drawn: without it, all else is as it was
        boxes = [elsewhere(np.concatenate(boxes), config.random_boxes, random)]
    return Drawn(tokens, text, boxes, crop)


def elsewhere(boxes: NDArray[np.float32], share: float, random: np.random.Generator) -> NDArray[np.float32]:
    """The boxes [K, 4] in 0..1, each with this chance moved to a random place inside the image, its size kept."""
    moved = random.random(len(boxes)) < share
    sizes = boxes[:, 2:] - boxes[:, :2]
    corners = random.random((len(boxes), 2), np.float32) * (1 - sizes).clip(0)
    return np.where(moved[:, None], np.concatenate([corners, corners + sizes], 1), boxes)


def masks(drawn: Sequence[Drawn], length: int, grid: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The masks of a batch: tokens [B, length], and patches [B, grid * grid], row by row."""
    text = _touching([one.tokens for one in drawn], [one.spans for one in drawn], length)
    patch = patches([one.boxes for one in drawn], [one.crop for one in drawn], grid)
    for row, one in enumerate(drawn):
        if one.some is not None:
            text[row, : len(one.some)] = one.some
        if one.rectangle is not None:
            patch[row] = one.rectangle
    return text, patch


def _touching(
    tokens: Sequence[Tokens], spans: Sequence[Sequence[tuple[int, int]]], length: int
) -> NDArray[np.bool_]:
    """Which tokens of each caption share a character with any of its spans, [B, length]."""
    there = np.arange(length) < np.array([[len(one.ids)] for one in tokens])
    starts, ends = np.zeros(there.shape, np.int64), np.zeros(there.shape, np.int64)
    starts[there] = np.concatenate([one.starts for one in tokens])
    ends[there] = np.concatenate([one.ends for one in tokens])
    flat = np.array([span for own in spans for span in own], np.int64).reshape(-1, 2)
    owner = np.repeat(np.arange(len(spans)), [len(own) for own in spans])
    first, last = flat[:, :1], flat[:, 1:]
    touches = (starts[owner] < last) & (ends[owner] > first) & (first < last)
    return any_of(touches, owner, len(tokens)) & (starts < ends)


def patches(
    boxes: Sequence[Sequence[NDArray[np.float32]]], crops: Sequence[Crop], grid: int
) -> NDArray[np.bool_]:
    """Which patches of each crop share any area with its boxes ([K, 4] each, of the original image), [B, P]."""
    flat = np.concatenate([*(one for own in boxes for one in own), np.empty((0, 4), np.float32)])
    owner = np.repeat(np.arange(len(boxes)), [sum(map(len, own)) for own in boxes])
    sizes = [(c.left, c.width, c.image_width, c.top, c.height, c.image_height) for c in crops]
    left, width, image_width, top, height, image_height = np.array(sizes, np.float64)[owner].T
    x0, x1 = (_inside(flat[:, i], image_width, left, width, grid) for i in (0, 2))
    y0, y1 = (_inside(flat[:, i], image_height, top, height, grid) for i in (1, 3))
    return any_of(touched(x0, y0, x1, y1, grid), owner, len(boxes)).reshape(-1, grid**2)


def _inside(
    edge: NDArray[np.float32],
    image: NDArray[np.float64],
    start: NDArray[np.float64],
    size: NDArray[np.float64],
    grid: int,
) -> NDArray[np.float64]:
    """Box edges in 0..1 of the image to 0..grid of the crop, or beyond it."""
    return (edge.astype(np.float64) * image - start) * grid / size


def _words(concept: Grounded, caption: str, config: MaskConfig) -> list[tuple[int, int]]:
    if concept.kind == OBJECT:
        return [concept.head]
    if concept.kind == RELATION and config.relations == "content":
        return [word for span in concept.spans for word in _content(caption, *span)]
    return list(concept.spans)


def _content(caption: str, start: int, end: int) -> list[tuple[int, int]]:
    found = []
    for word in caption[start:end].split():
        start = caption.index(word, start)
        if word.lower() not in FUNCTION_WORDS:
            found.append((start, start + len(word)))
        start += len(word)
    return found


def _some_tokens(tokens: Tokens, ratio: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Mask a share of the tokens that stand for characters, at least one."""
    mask = np.zeros(len(tokens.ids), np.bool_)
    places = np.flatnonzero(tokens.words)
    mask[random.permutation(places)[: max(1, round(ratio * len(places)))]] = True
    return mask


def _rectangle(grid: int, ratio: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Mask one rectangle of about `ratio` of the patches, its shape and place at random."""
    heights = rectangle.heights(grid, ratio)
    height = int(random.integers(heights.start, heights.stop))
    width = rectangle.width(height, grid, ratio)
    top, left = random.integers(grid - height + 1), random.integers(grid - width + 1)
    mask = np.zeros((grid, grid), np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask.ravel()
