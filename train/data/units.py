"""Units of captions, each with foils of its own, from a store's scene graphs: STORE/units/<shard>.parquet.

A unit is an entity as the detector was asked for it ("red dog"), or a relation with its ends ("red dog sitting on small
sofa"). Its foils are made by rule, of words drawn by their frequency: now and then one is true, or makes little sense.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from macco.pipeline.schema import ATTRIBUTE, ENTITY, OBJECT, RELATION, UNITS
from macco.pipeline.store import Store
from macco.train.data.negatives import SYMMETRIC, Concept, Rows, Vocabulary, nearest, write_made

SCHEMA: Final = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),  # 0-based among the caption's
        pa.field("kind", pa.string(), nullable=False),  # entity | relation
        pa.field("text", pa.string(), nullable=False),
        # A row for each foil; one, with nulls, where there is none.
        pa.field("foil_kind", pa.string()),
        pa.field("foil", pa.string()),
    ]
)

Foils = dict[str, str]  # by kind


def write_units(store: Store, seed: int, log: Callable[[str], None]) -> int:
    """Write the units of every committed shard into the store; returns how many rows there are.

    The same store and seed give the same rows.
    """
    vocabulary = Vocabulary.of(store, nouns=True)

    def rows(caption: str, concepts: list[Concept], random: np.random.Generator) -> Rows:
        found: Rows = []
        for number, (kind, text, foils) in enumerate(units(concepts, vocabulary, random)):
            unit = {"unit": number, "kind": kind, "text": text}
            found += [unit | {"foil_kind": name, "foil": foil} for name, foil in foils.items()] or [unit]
        return found

    return write_made(store, UNITS, SCHEMA, rows, seed, log)


def units(
    concepts: Iterable[Concept], vocabulary: Vocabulary, random: np.random.Generator
) -> Iterator[tuple[str, str, Foils]]:
    """Kind, text and foils of a caption's units: its objects, then the relations between two of them."""
    pieces: dict[str, list[Concept]] = defaultdict(list)
    for row in concepts:
        pieces[row["concept_id"]].append(row)
    whole = [rows[0] | {"text": " ".join(row["text"] for row in rows)} for rows in pieces.values()]
    objects, attributes, relations = (
        [c for c in whole if c["kind"] == kind] for kind in (OBJECT, ATTRIBUTE, RELATION)
    )
    said = {word for c in objects for word in (c["lemma"], c["head"].lower())}
    entities: dict[str, tuple[Concept, Foils]] = {}
    for thing in objects:
        foils = _entity_foils(thing, objects, attributes, said, vocabulary, random)
        entities[thing["concept_id"]] = thing, foils
        yield ENTITY, thing["phrase"], foils
    for relation in relations:
        if relation["subject_id"] in entities and relation["object_id"] in entities:
            ends = entities[relation["subject_id"]], entities[relation["object_id"]]
            text = " ".join([ends[0][0]["phrase"], relation["text"], ends[1][0]["phrase"]])
            yield RELATION, text, _relation_foils(relation, relations, ends, vocabulary, random)


def _entity_foils(
    thing: Concept,
    objects: list[Concept],
    attributes: list[Concept],
    said: set[str],
    vocabulary: Vocabulary,
    random: np.random.Generator,
) -> Foils:
    """At most two: the same with another's attribute, or where there is none with a drawn one; and another thing."""
    phrase, name, found = thing["phrase"], thing["concept_id"], dict[str, str]()
    named = {c["concept_id"]: c for c in objects}
    for one in (a for a in nearest(attributes, named) if a["owner_id"] == name):
        has = {a["text"].lower() for a in attributes if a["owner_id"] == name}
        others = [
            a["text"].lower()
            for a in nearest(attributes, named)
            if a["pos"] == one["pos"]
            and a["text"].lower() not in has
            and a["owner_id"] in named
            and named[a["owner_id"]]["lemma"] != thing["lemma"]
        ]
        kind = "swap_attribute" if others else "replace_attribute"
        text = others[int(random.integers(len(others)))] if others else vocabulary.draw(one, has, random)
        if text is not None and (foil := _exchanged(phrase, one["text"], text)) is not None:
            found[kind] = foil
    text = vocabulary.draw(thing, said, random)
    if text is not None and (foil := _exchanged(phrase, thing["head"], text)) is not None:
        found["replace_object"] = foil
    return found


def _relation_foils(
    relation: Concept,
    relations: list[Concept],
    ends: tuple[tuple[Concept, Foils], tuple[Concept, Foils]],
    vocabulary: Vocabulary,
    random: np.random.Generator,
) -> Foils:
    """At most three: the ends exchanged, another relation, one end replaced by one of its own foils."""
    (subject, _), (object_, _) = ends
    between, found = relation["text"], dict[str, str]()
    if subject["lemma"] != object_["lemma"] and not SYMMETRIC & set(relation["lemma"].split()):
        found["swap_object"] = f"{object_['phrase']} {between} {subject['phrase']}"
    text = vocabulary.draw(relation, {r["text"].lower() for r in relations}, random)
    if text is not None:
        found["replace_relation"] = f"{subject['phrase']} {text} {object_['phrase']}"
    foils = [(end, kind, foil) for end in (0, 1) for kind, foil in ends[end][1].items()]
    if foils:
        end, kind, foil = foils[int(random.integers(len(foils)))]
        said = [subject["phrase"], object_["phrase"]]
        said[end] = foil
        found[kind] = f"{said[0]} {between} {said[1]}"
    return found


def _exchanged(phrase: str, words: str, others: str) -> str | None:
    """A phrase with other words for some of its own, where they stand last; None where it has them not.

    Whole words only: there is no "man" in "woman".
    """
    places = [*re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", phrase, re.IGNORECASE)]
    return phrase[: places[-1].start()] + others + phrase[places[-1].end() :] if places else None
