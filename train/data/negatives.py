"""Hard negative captions from a store's own scene graphs: STORE/negatives/<shard>.parquet.

Each caption gets at most one of each kind, by exchanging or replacing the words of its concepts in place.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.query import connect
from macco.pipeline.schema import ATTRIBUTE, NEGATIVE_ROWS, NEGATIVES, OBJECT, OK, RELATION
from macco.pipeline.store import Store
from macco.train.data.masks import FUNCTION_WORDS

COMMON: Final = 1000  # words of one sort that replacements are drawn from: the most frequent
TRIES: Final = 20  # draws of a replacement before there is none
# What holds from either side: exchanging its ends says the same.
SYMMETRIC: Final = frozenset(
    "next beside near nearby with and by alongside close far away opposite".split()  # noqa: SIM905
)

Concept = dict[str, Any]  # a row of the store's concepts
Rows = list[dict[str, Any]]
Edit = tuple[int, int, str]  # characters [start, end) of the caption, and what comes there
Sort = tuple[str, str, str]  # kind, part of speech, ending: words that can stand for each other


@dataclass(frozen=True)
class Vocabulary:
    """Relation and attribute words of a corpus by sort, with their share; nouns too, where they are asked for."""

    words: dict[Sort, tuple[list[str], NDArray[np.float64]]]

    @classmethod
    def of(cls, store: Store, *, nouns: bool = False) -> "Vocabulary":
        """Count the words of a store; concepts in several pieces are left out."""
        counted = "count(*) AS n FROM concepts WHERE denied IS NOT TRUE"
        whole = "concept_id NOT IN (SELECT concept_id FROM concepts WHERE part > 0)"
        grouped = "GROUP BY ALL ORDER BY n DESC, kind, pos, head, text"
        with connect(store, views=("concepts",)) as connection:
            rows = connection.execute(
                f"SELECT kind, pos, lower(head) AS head, lower(text) AS text, '' AS lemma, {counted} "
                f"AND kind IN ('{RELATION}', '{ATTRIBUTE}') AND {whole} {grouped}"
            ).fetchall()
            if nouns:
                rows += connection.execute(
                    f"SELECT kind, pos, lower(head) AS head, lower(head) AS text, lemma, {counted} "
                    f"AND kind = '{OBJECT}' AND part = 0 {grouped}"
                ).fetchall()
        counts: dict[Sort, dict[str, int]] = defaultdict(dict)
        for kind, pos, head, text, lemma, count in rows:
            sort = counts[_sort(kind, pos, head, lemma)]
            if text in sort or len(sort) < COMMON:
                sort[text] = sort.get(text, 0) + count
        numbers = {sort: np.array([*of.values()], np.float64) for sort, of in counts.items()}
        return cls({sort: ([*of], numbers[sort] / numbers[sort].sum()) for sort, of in counts.items()})

    def draw(self, concept: Concept, but: Collection[str], random: np.random.Generator) -> str | None:
        """Words that can stand for a concept's and are none of `but`; None where there seem to be none.

        They share no content word with the concept's: "on the left of" says the same as "to the left of".
        """
        own = set(concept["text"].lower().split()) - FUNCTION_WORDS
        sort = _sort(concept["kind"], concept["pos"], concept["head"], concept["lemma"])
        texts, shares = self.words.get(sort, ([], None))
        for _ in range(TRIES if texts else 0):
            text = texts[int(random.choice(len(texts), p=shares))]
            if text not in but and not own & set(text.split()):
                return text
        return None


def _sort(kind: str, pos: str, head: str, lemma: str) -> Sort:
    if kind == OBJECT:
        return kind, pos, "" if head.lower() == lemma else "plural"
    ending = re.search("(ing|ed|s)$", head.lower()) if pos == "VERB" else None
    return kind, pos, ending[1] if ending else ""


def write_negatives(store: Store, seed: int, log: Callable[[str], None]) -> int:
    """Write the negatives of every committed shard into the store; returns how many there are.

    The same store and seed give the same rows.
    """
    store.require_whole()
    vocabulary = Vocabulary.of(store, nouns=True)

    def rows(caption: str, concepts: list[Concept], random: np.random.Generator) -> Rows:
        made = negatives(caption, concepts, vocabulary, random)
        return [{"kind": kind, "caption": text} for kind, text in made.items()]

    return write_made(store, NEGATIVES, NEGATIVE_ROWS, rows, seed, log)


def write_made(
    store: Store,
    name: str,
    schema: pa.Schema,
    rows: Callable[[str, list[Concept], np.random.Generator], Rows],
    seed: int,
    log: Callable[[str], None],
) -> int:
    """Write what `rows` makes of each caption and its concepts as STORE/name/<shard>.parquet; returns how many rows.

    Concepts that the caption denies are left out. Each caption has a generator of its own.
    """
    say_replaced(store, name, log)
    store.make(name)
    total = 0
    for shard in sorted(store.committed()):
        samples = store.table("samples", shard).select(["sample_id", "caption", "status"]).to_pylist()
        concepts: dict[str, list[Concept]] = defaultdict(list)
        for row in store.table("concepts", shard).to_pylist():
            if not row["denied"]:
                concepts[row["sample_id"]].append(row)
        made: Rows = []
        for sample in samples:
            if sample["status"] == OK and sample["sample_id"] in concepts:
                own = sample["sample_id"]
                random = np.random.default_rng((seed, _number(own)))
                made += [{"sample_id": own} | row for row in rows(sample["caption"], concepts[own], random)]
        store.put(f"{name}/{shard}.parquet", parquet_bytes(schema, pa.Table.from_pylist(made, schema=schema)))
        total += len(made)
        log(f"{shard}: {len(made)} {name} of {len(samples)} captions")
    return total


def say_replaced(store: Store, name: str, log: Callable[[str], None]) -> None:
    """Say how many rows of a table others are to take the places of, if there are any."""
    files = store.names(".parquet", name)
    rows = sum(pq.read_metadata(BytesIO(store.read(f"{name}/{file}.parquet"))).num_rows for file in files)
    if files:
        log(f"{store.url} has {rows:,} rows of {name}, made or imported: others take their places")


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def negatives(
    caption: str, concepts: Iterable[Concept], vocabulary: Vocabulary, random: np.random.Generator
) -> dict[str, str]:
    """Wrong captions of one caption by kind, of the kinds that its concepts allow."""
    pieces: dict[str, list[Concept]] = defaultdict(list)
    for row in concepts:
        pieces[row["concept_id"]].append(row)
    whole = {name: rows[0] for name, rows in pieces.items() if len(rows) == 1}
    objects, attributes, relations = (
        [c for c in whole.values() if c["kind"] == kind] for kind in (OBJECT, ATTRIBUTE, RELATION)
    )
    named = {c["concept_id"]: c for c in objects}
    swaps = {
        "swap_object": [
            (named[c["subject_id"]], named[c["object_id"]])
            for c in (rows[0] for rows in pieces.values())
            if c["subject_id"] in named
            and c["object_id"] in named
            and not SYMMETRIC & set(c["lemma"].split())
        ],
        "swap_attribute": [
            (a, b)
            for a, b in combinations(nearest(attributes, named), 2)
            if a["pos"] == b["pos"] and _lemma(named, a["owner_id"]) != _lemma(named, b["owner_id"])
        ],
    }
    found: dict[str, str] = {}
    for kind, pairs in swaps.items():
        pairs = [(a, b) for a, b in pairs if a["lemma"] != b["lemma"] and _apart(a, b)]
        if pairs:
            a, b = pairs[int(random.integers(len(pairs)))]
            edits = [(a["start"], a["end"], b["text"]), (b["start"], b["end"], a["text"])]
            found[kind] = edited(caption, edits)
    for kind, candidates in (("replace_relation", relations), ("replace_attribute", attributes)):
        if candidates:
            concept = candidates[int(random.integers(len(candidates)))]
            text = vocabulary.draw(concept, {c["text"].lower() for c in candidates}, random)
            if text is not None:
                found[kind] = edited(caption, [(concept["start"], concept["end"], text)])
    if objects:  # last, so that the other kinds draw what they drew before there was this one
        thing = objects[int(random.integers(len(objects)))]
        text = vocabulary.draw(
            thing, {word for c in objects for word in (c["lemma"], c["head"].lower())}, random
        )
        start, end = thing["head_start"], thing["head_start"] + len(thing["head"])
        if text is not None and caption[start:end] == thing["head"]:
            found["replace_object"] = edited(caption, [(start, end, text)])
    return {kind: text for kind, text in found.items() if text.lower() != caption.lower()}


def nearest(attributes: list[Concept], objects: dict[str, Concept]) -> list[Concept]:
    """Of each object's attributes the one nearest its noun: with "small red", colour and not size is exchanged.

    Adjectives of one sort stand at one distance, and "a red black cat" would be too easy to tell from a caption.
    """

    def distance(attribute: Concept) -> int:
        owner = objects.get(attribute["owner_id"])
        return 0 if owner is None else abs(owner["head_start"] - attribute["start"])

    chosen = {c["owner_id"]: c for c in sorted(attributes, key=distance, reverse=True)}
    return [c for c in attributes if c is chosen[c["owner_id"]]]


def _lemma(objects: dict[str, Concept], name: str | None) -> str | None:
    return objects[name]["lemma"] if name in objects else name


def _apart(a: Concept, b: Concept) -> bool:
    return bool(a["end"] <= b["start"] or b["end"] <= a["start"])


def edited(caption: str, edits: Iterable[Edit]) -> str:
    """Put words in place, with the capital of the caption's start and the article before them made right."""
    capital = caption[:1].isupper()
    for start, end, text in sorted(edits, reverse=True):
        if capital and start > 0 and caption.startswith(text) and text[1:] == text[1:].lower():
            text = text[:1].lower() + text[1:]  # it stood first
        before = re.sub(
            r"\b([Aa])n?(\s+)$", "\\1" + ("n" if text[:1] in "aeiou" else "") + "\\2", caption[:start]
        )
        caption = before + text + caption[end:]
    return caption[:1].upper() + caption[1:] if capital else caption
