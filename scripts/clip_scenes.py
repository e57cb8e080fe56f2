"""Scenes of the demo corpus as arrays, with what is true of them, for training and probing a small CLIP."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from macco.pipeline.schema import OBJECT, RELATION, Concept
from macco.preprocess.demo.captions import WORDS, captions
from macco.preprocess.demo.corpus import make
from macco.preprocess.demo.icons import COLOURS, FRAME, NAMES, NOUNS, mask
from macco.preprocess.demo.scene import RELATIONS, SIDE, Scene
from macco.train.data.negatives import Vocabulary, negatives

SIZE, PATCH = 96, 16
GRID = SIZE // PATCH
THINGS = 4  # of a scene, at most
OPPOSITE = {
    "left of": "right of",
    "above": "below",
    "on": "under",
    "inside": "around",
    "behind": "in front of",
}
SAID = 5  # objects of a caption that are looked at
WORDINGS = {words: kind for kind, wordings in WORDS.items() for words, *_ in wordings}
NOUN_IDS = {noun: i + 1 for i, noun in enumerate([*NOUNS, FRAME])}  # 0: none
COLOUR_IDS = {colour: i + 1 for i, colour in enumerate(COLOURS)}
# How a thing lies to another; "a left of b" and "b right of a" are one fact: a has a role, b has its partner.
ROLES = (*RELATIONS, "around")
PARTNERS = tuple(
    ROLES.index({**OPPOSITE, **{b: a for a, b in OPPOSITE.items()}}.get(role, role)) for role in ROLES
)
TOLD = 6  # roles of a caption that are looked at


@dataclass
class Scenes:
    """N scenes as arrays."""

    images: NDArray[np.uint8]  # [N, 3, SIZE, SIZE]
    texts: list[list[str]]  # 5 captions of each
    swapped: list[list[tuple[str, str]]]  # each caption with its attributes, and with its objects, exchanged
    owners: NDArray[np.float16]  # [N, THINGS, GRID * GRID]: share of a patch that a thing's ink covers
    nouns: NDArray[np.int64]  # [N, THINGS], 0 where there is no such thing
    colours: NDArray[np.int64]
    relations: NDArray[np.bool_]  # [N, THINGS, THINGS, relations]
    said_nouns: NDArray[np.int64]  # [N, 5, SAID]: the nouns of each caption, 0 where there are no more
    said_colours: NDArray[np.int64]  # 0 where it says none
    said_relations: NDArray[np.bool_]  # [N, 5, SAID, SAID, relations]: subject, object
    told: NDArray[np.int64]  # [N, 5, TOLD, 3]: the end of the characters that first tell a role; noun; role


def ink_shares(scene: Scene) -> NDArray[np.float16]:
    """For each thing, the share of each patch that it visibly covers, [THINGS, GRID * GRID]."""
    owner = np.full((SIDE, SIDE), -1)
    for place, thing in enumerate(scene.things):
        for x0, y0, x1, y1 in thing.boxes:
            ink = np.asarray(mask(thing.noun, round(max(x1 - x0, y1 - y0)))) > 127
            view = owner[round(y0) :, round(x0) :][: ink.shape[0], : ink.shape[1]]
            view[ink[: view.shape[0], : view.shape[1]]] = place
    shares = [
        np.asarray(
            Image.fromarray((owner == place).astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
        )
        for place in range(THINGS)
    ]
    return np.stack(shares).reshape(THINGS, -1).astype(np.float16)


def note(
    concepts: list[Concept],
    nouns: NDArray[np.int64],
    colours: NDArray[np.int64],
    relations: NDArray[np.bool_],
    told: NDArray[np.int64],
) -> None:
    """Write down what a caption says: into [SAID], [SAID], [SAID, SAID, relations] and [TOLD, 3]."""
    roles: dict[int, tuple[int, int]] = {}
    for place, concept in enumerate(concepts):
        if concept.kind == OBJECT and place < SAID:
            nouns[place] = NOUN_IDS[NAMES[concept.lemma]]
            colours[place] = next(
                (COLOUR_IDS[w] for w in (concept.phrase or "").split() if w in COLOUR_IDS), 0
            )
        elif concept.kind == RELATION and concept.subject is not None and concept.object is not None:
            words = max((w for w in WORDINGS if f" {concept.lemma}".endswith(f" {w}")), key=len)
            role = RELATIONS.index(WORDINGS[words])
            if max(concept.subject, concept.object) < SAID:
                relations[concept.subject, concept.object, role] = True
            # A causal tower knows a thing's role where both the thing and the relation have been read.
            for number, part in ((concept.subject, role), (concept.object, PARTNERS[role])):
                thing = concepts[number]
                end = max(thing.head.end, *(span.end for span in concept.spans))
                roles.setdefault(end, (NOUN_IDS[NAMES[thing.lemma]], part))
    for number, (end, (noun, role)) in enumerate([*roles.items()][:TOLD]):
        told[number] = end, noun, role


def swaps(text: str, concepts: list[Concept], number: int) -> tuple[str, str]:
    """The caption with two attributes, and with two objects exchanged; as it is where it has no such pair."""
    rows = [
        {"concept_id": place, "kind": c.kind, "start": start, "end": end, "text": text[start:end]}
        | {
            "lemma": c.lemma,
            "pos": c.pos,
            "head": text[c.head.start : c.head.end],
            "head_start": c.head.start,
        }
        | {"subject_id": c.subject, "object_id": c.object, "owner_id": c.owner}
        for place, c in enumerate(concepts)
        for start, end in c.spans
    ]
    found = negatives(text, rows, Vocabulary({}), np.random.default_rng(number))
    return found.get("swap_attribute", text), found.get("swap_object", text)


def draw(start: int, stop: int, split: str, seed: int) -> Scenes:
    """Draw scenes `start` to `stop` of a split."""
    count = stop - start
    found = Scenes(
        np.zeros((count, 3, SIZE, SIZE), np.uint8),
        [],
        [],
        np.zeros((count, THINGS, GRID * GRID), np.float16),
        np.zeros((count, THINGS), np.int64),
        np.zeros((count, THINGS), np.int64),
        np.zeros((count, THINGS, THINGS, len(RELATIONS)), np.bool_),
        np.zeros((count, 5, SAID), np.int64),
        np.zeros((count, 5, SAID), np.int64),
        np.zeros((count, 5, SAID, SAID, len(RELATIONS)), np.bool_),
        np.zeros((count, 5, TOLD, 3), np.int64),
    )
    for i in range(count):
        scene, rng = make(split, seed, start + i)
        small = scene.draw().resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        found.images[i] = np.asarray(small).transpose(2, 0, 1)
        written = captions(scene, rng)
        found.texts.append([text for text, _ in written])
        found.swapped.append([swaps(text, concepts, start + i) for text, concepts in written])
        for number, (_, concepts) in enumerate(written):
            place = i, number
            said = found.said_nouns, found.said_colours, found.said_relations, found.told
            note(concepts, *(values[place] for values in said))  # type: ignore[arg-type]
        found.owners[i] = ink_shares(scene)
        for place, thing in enumerate(scene.things):
            found.nouns[i, place], found.colours[i, place] = NOUN_IDS[thing.noun], COLOUR_IDS[thing.colour]
        for a, relation, b in scene.relations:
            found.relations[i, a, b, RELATIONS.index(relation)] = True
    return found


PIECE = 2000  # scenes that a process draws at once


def draw_many(count: int, split: str, seed: int, jobs: int = 2) -> Scenes:
    """Draw `count` scenes, where they are many in several processes: spawned, as a fork of threads at work may die."""
    if count <= PIECE:
        return draw(0, count, split, seed)
    edges = np.linspace(0, count, max(jobs, count // PIECE) + 1).astype(int).tolist()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        parts = list(pool.map(draw, edges, edges[1:], [split] * len(edges), [seed] * len(edges)))
    joined: dict[str, Any] = {}
    for name, value in vars(parts[0]).items():
        values = [getattr(part, name) for part in parts]
        joined[name] = list(chain(*values)) if isinstance(value, list) else np.concatenate(values)
    return Scenes(**joined)


def normalised(images: Tensor) -> Tensor:
    """Pixels 0..255, [B, 3, S, S], as CLIP wants them."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1) * 255
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (images.float() - mean) / std
