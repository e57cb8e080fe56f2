"""The questions of docs/cookbook.md, as they stand there, against a count by hand over the rows of the tables."""

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from macco.pipeline.query import query
from macco.pipeline.store import Store
from macco.train.data.negatives import write_negatives
from tests.support import ROOT

QUESTIONS = dict(
    re.findall(r"### (\d+)\. [^\n]*\n\n```sql\n(.*?)```", (ROOT / "docs/cookbook.md").read_text(), re.DOTALL)
)
FORMER = ROOT / "tests/fixtures/v0.1/store"
Row = dict[str, Any]


class Held:
    """The tables' rows, read without SQL."""

    def __init__(self, store: Store) -> None:
        shards = sorted(store.committed())
        self.samples, self.concepts, self.boxes = (
            [row for shard in shards for row in store.table(name, shard).to_pylist()]
            for name in ("samples", "concepts", "boxes")
        )
        self.concepts = [row for row in self.concepts if row["part"] == 0]
        self.by_id = {row["concept_id"]: row for row in self.concepts}
        self.of = defaultdict(list)
        for box in self.boxes:
            self.of[box["concept_id"]].append(box)
        self.records = [store.shard(shard) for shard in shards]

    def kind(self, kind: str) -> list[Row]:
        return [row for row in self.concepts if row["kind"] == kind]

    def best(self, concept: str | None) -> Row | None:
        return max(self.of[concept or ""], key=lambda box: (box["score"], box["x0"]), default=None)


def counted(counts: Counter[Any]) -> list[Any]:
    """Commonest first, then in order; the first twenty."""
    rows = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [(*(key if isinstance(key, tuple) else (key,)), n) for key, n in rows][:20]


def failed(held: Held) -> list[Any]:
    found = defaultdict(list)
    for row in held.samples:
        if row["status"] != "ok":
            found[row["status"]].append(row["error"])
    return sorted(((s, len(e), min(e)) for s, e in found.items()), key=lambda row: (-row[1], row[0]))


def owned(held: Held) -> list[Any]:
    pairs = [(held.by_id[row["owner_id"]]["lemma"], row["lemma"]) for row in held.kind("attribute")]
    return counted(Counter(pairs))


def triplets(held: Held) -> list[Any]:
    ends = [(row["subject_id"], row["lemma"], row["object_id"]) for row in held.kind("relation")]
    named = [(held.by_id[s]["lemma"], r, held.by_id[o]["lemma"]) for s, r, o in ends if s and o]
    return counted(Counter(named))


def together(held: Held) -> list[Any]:
    named = defaultdict(set)
    for row in held.kind("object"):
        named[row["sample_id"]].add(row["lemma"])
    return counted(Counter((a, b) for some in named.values() for a in some for b in some if a < b))


def grounded(held: Held) -> list[Any]:
    best = [(held.best(row["concept_id"]) or {"score": 0})["score"] for row in held.kind("object")]
    return [(step / 10, sum(score >= step / 10 for score in best) / len(best)) for step in range(1, 9)]


def missed(held: Held) -> list[Any]:
    asked, lost = Counter[str](), Counter[str]()
    for row in held.kind("object"):
        if not row.get("denied"):
            asked[row["lemma"]] += 1
            lost[row["lemma"]] += (held.best(row["concept_id"]) or {"score": 0})["score"] < 0.35
    rows = [(lemma, n, lost[lemma]) for lemma, n in asked.items() if lost[lemma]]
    return sorted(rows, key=lambda row: (-row[2] / row[1], -row[1], row[0]))[:20]


def higher(held: Held) -> list[Any]:
    found, above = Counter[str](), Counter[str]()
    for row in held.kind("relation"):
        one, other = (held.best(row[f"{end}_id"]) for end in ("subject", "object"))
        if row["lemma"] in ("above", "below") and one and other:
            found[row["lemma"]] += 1
            above[row["lemma"]] += one["y0"] + one["y1"] < other["y0"] + other["y1"]
    return [(lemma, found[lemma], above[lemma]) for lemma in sorted(found)]


def overlap(a: Row, b: Row) -> float:
    sides = [min(a[f"{n}1"], b[f"{n}1"]) - max(a[f"{n}0"], b[f"{n}0"]) for n in "xy"]
    common = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box["x1"] - box["x0"]) * (box["y1"] - box["y0"]) for box in (a, b)]
    return float(common / (sum(areas) - common))


def same_box(held: Held) -> list[Any]:
    boxes = defaultdict(list)
    for box in held.boxes:
        if box["score"] >= 0.35:
            boxes[box["sample_id"]].append(box)
    found = []
    for sample, some in boxes.items():
        for a in some:
            for b in some:
                one, other = (held.by_id[box["concept_id"]]["lemma"] for box in (a, b))
                if one < other and overlap(a, b) > 0.9:
                    found.append((sample, one, other, round(overlap(a, b), 3)))
    return sorted(found)


def places(held: Held) -> list[Any]:
    boxes = defaultdict(list)
    for box in held.boxes:
        if box["score"] >= 0.35:
            boxes[held.by_id[box["concept_id"]]["lemma"]].append(box)

    def mean(some: list[Row], value: Callable[[Row], float]) -> float:
        return sum(map(value, some)) / len(some)

    rows = [
        (
            lemma,
            len(some),
            mean(some, lambda b: (b["x1"] - b["x0"]) * (b["y1"] - b["y0"])),
            mean(some, lambda b: (b["x0"] + b["x1"]) / 2),
            mean(some, lambda b: (b["y0"] + b["y1"]) / 2),
        )
        for lemma, some in boxes.items()
    ]
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:20]


def colours(held: Held) -> list[Any]:
    known = {"red", "green", "blue", "yellow", "orange", "purple", "black", "white"}
    found = defaultdict(set)
    for row in held.kind("attribute"):
        if row["lemma"] in known:
            owner = held.by_id[row["owner_id"]]
            found[owner["dataset"], owner["shard"], owner["key"], owner["lemma"]].add(row["lemma"])
    return sorted((*key, sorted(some)) for key, some in found.items() if len(some) > 1)


def plain(held: Held) -> list[Any]:
    kinds = defaultdict(list)
    for row in held.concepts:
        kinds[row["sample_id"]].append(row["kind"])
    return sorted(
        (row["sample_id"], row["caption"], len(kinds[row["sample_id"]]))
        for row in held.samples
        if row["status"] == "ok" and {*kinds[row["sample_id"]]} <= {"object"}
    )


def richest(held: Held) -> list[Any]:
    captions = Counter((row["dataset"], row["shard"], row["key"]) for row in held.samples if row["caption"])
    concepts = Counter((row["dataset"], row["shard"], row["key"]) for row in held.concepts)
    rows = [(*key, n, concepts[key]) for key, n in captions.items()]
    return sorted(rows, key=lambda row: (-row[4], row[:3]))[:20]


def steps(held: Held) -> list[Any]:
    seconds, samples = Counter[str](), Counter[str]()
    for record in held.records:
        for step, value in record["seconds"].items():
            seconds[step] += value
            samples[step] += record["samples"]
    rows = [(step, value, 1000 * value / samples[step]) for step, value in seconds.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


ANSWERS: dict[str, Callable[[Held], list[Any]]] = {
    "1": failed,
    "2": lambda held: counted(Counter(row["lemma"] for row in held.kind("object"))),
    "3": owned,
    "4": triplets,
    "5": together,
    "6": grounded,
    "7": missed,
    "8": higher,
    "9": same_box,
    "10": places,
    "11": colours,
    "12": plain,
    "13": richest,
    "15": steps,
}


@pytest.fixture(scope="module", params=["extracted", "former"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of an extraction, and one that a former version wrote; both with negatives."""
    folder = tmp_path_factory.mktemp("cookbook") / "store"
    own = request.param == "extracted"
    shutil.copytree(request.getfixturevalue("store").url if own else FORMER, folder)
    made = Store.open(str(folder))
    if own:
        write_negatives(made, 0, lambda line: None)
    return made


@cache
def held(store: Store) -> Held:
    return Held(store)


def rows(store: Store, number: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in query(store, QUESTIONS[number]).to_pylist()]


def test_there_are_fifteen() -> None:
    assert [*QUESTIONS] == [str(number) for number in range(1, 16)]


@pytest.mark.parametrize("number", ANSWERS)
def test_an_answer_is_a_count_by_hand(number: str, asked: Store) -> None:
    expected = ANSWERS[number](held(asked))
    found = rows(asked, number)
    assert len(found) == len(expected)
    for row, one in zip(found, expected, strict=True):
        for value, other in zip(row, one, strict=True):
            assert value == (pytest.approx(other, rel=1e-5) if isinstance(other, float) else other)


def test_most_questions_have_an_answer(asked: Store) -> None:
    """A demo has nothing that failed, and few captions of a lone object; all else is there to be found."""
    assert {number for number in QUESTIONS if not rows(asked, number)} <= {"1", "9", "11", "12"}


def test_negatives_differ_a_little(asked: Store) -> None:
    found = rows(asked, "14")
    files = Path(asked.url, "negatives").glob("*.parquet")
    kinds = Counter(kind for file in files for kind in pq.read_table(file)["kind"].to_pylist())
    assert {kind: count for kind, count, _ in found} == kinds
    assert all(0 < characters < 60 for _, _, characters in found)


def test_what_failed_is_told(tmp_path: Path) -> None:
    from tests.support.rows import record, tables

    store = Store.create(str(tmp_path / "store"), {})
    made = tables("a", ["dog", "cat", "cow"])
    statuses = ["ok", "image_corrupt", "image_corrupt"]
    errors = [None, "cannot be decoded", "broken"]
    samples = made["samples"]
    for name, values in (("status", statuses), ("error", errors)):
        field = samples.schema.field(name)
        samples = samples.set_column(samples.schema.get_field_index(name), field, [values])
    store.commit("a", made | {"samples": samples}, record("a"))
    assert rows(store, "1") == [("image_corrupt", 2, "broken")] == failed(Held(store))
