"""Views and macros over the tables: what a row of each is, wherever SQL is offered; the page that lists them."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import macco
from benchmarks.shards import build as build_shards
from macco.pipeline import reference
from macco.pipeline.errors import UserError
from macco.pipeline.page.filter import Filter
from macco.pipeline.page.gallery import Gallery
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import NEGATIVE_ROWS, TABLES, TEXTS
from macco.pipeline.store import Store
from macco.pipeline.views import TABLE_MACROS, VIEWS, made_of
from macco.preprocess.look.sql import query
from macco.train.config import MaskConfig
from macco.train.data.elsewhere import import_texts
from macco.train.data.index import build
from macco.train.data.selection import Selection
from macco.train.data.units import write_units
from tests.support import ROOT
from tests.support.commands import Command
from tests.support.drawn import drawn_store
from tests.support.rows import record, tables

CAPTION = "He picks the red ball up from a mat"
NEGATIVE = "He picks the blue ball up from a mat"


def concept(number: int, kind: str, words: str, lemma: str, part: int = 0, **links: int) -> dict[str, Any]:
    start = CAPTION.index(words)
    end = start + len(words)
    ids = {"dataset": "d", "shard": "a", "key": "0000", "caption_id": 0, "sample_id": "d/a/0000/0"}
    span = {"start": start, "end": end, "head": words, "head_start": start, "head_end": end, "pos": "NOUN"}
    named = {name: f"d/a/0000/0/{place}" for name, place in links.items()}
    own = {"concept_id": f"d/a/0000/0/{number}", "kind": kind, "part": part, "text": words, "lemma": lemma}
    return ids | own | span | named | {"denied": False}


CONCEPTS = [
    concept(0, "object", "the red ball", "ball"),
    concept(1, "object", "a mat", "mat"),
    concept(2, "attribute", "red", "red", owner_id=0),
    concept(3, "relation", "picks", "pick up", object_id=0),
    concept(3, "relation", "up", "pick up", part=1, object_id=0),
    concept(4, "relation", "from", "from", subject_id=0, object_id=1),
]
# Of the ball: the best twice, beside each other; the mat has none.
BOXES = [(0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.2, 0.7, 0.4, 0.75), (0.1, 0.6, 0.3, 0.8, 0.75)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two images: one of two captions, of which one failed; one without concepts."""
    store = Store.create(str(tmp_path_factory.mktemp("views") / "it's [a] store"), {})
    rows = tables("a", [CAPTION, CAPTION, "nothing"], boxes=0)
    samples = rows["samples"].to_pylist()
    second = {"sample_id": "d/a/0000/1", "key": "0000", "caption_id": 1, "caption": None}
    samples[1] |= second | {"status": "missing_caption", "error": "there is none"}
    box = {name: CONCEPTS[0][name] for name in TABLES["boxes"].names if name in CONCEPTS[0]}
    corners = ("x0", "y0", "x1", "y1", "score")
    boxes = [box | dict(zip(corners, one, strict=True)) for one in BOXES]
    given = {"samples": samples, "concepts": CONCEPTS, "boxes": boxes}
    whole = {name: pa.Table.from_pylist(given[name], schema=TABLES[name]) for name in TABLES}
    negatives = [["d/a/0000/0"], ["replace_attribute"], [NEGATIVE]]
    store.commit("a", whole | {"negatives": pa.table(negatives, schema=NEGATIVE_ROWS)}, record("a"))
    line = {
        "sample_id": "d/a/0000/0",
        "units": [{"text": "the red ball"}],
        "paraphrases": ["The ball is lifted"],
    }
    file = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    file.write_text(json.dumps(line))
    import_texts(store, str(file), lambda said: None)
    return store


def ask(store: Store, sql: str) -> list[dict[str, Any]]:
    with connect(store) as connection:
        return dicts(connection.execute(sql))


def test_a_triplet_has_both_ends_and_the_best_box_of_each(made: Store) -> None:
    lifted, laid = ask(made, "FROM triplets ORDER BY concept_id")
    best = {"score": 0.75, "x0": 0.5, "y0": 0.2, "x1": 0.7, "y1": 0.4}
    assert (lifted["subject"], lifted["relation"], lifted["object"]) == (None, "pick up", "ball")
    assert (lifted["subject_text"], lifted["relation_text"], lifted["object_text"]) == (
        None,
        "picks up",
        "the red ball",
    )
    assert (lifted["subject_boxes"], lifted["object_boxes"]) == (0, 3)
    assert (laid["subject"], laid["relation"], laid["object"]) == ("ball", "from", "mat")
    assert (laid["subject_boxes"], laid["object_boxes"], laid["object_box"]) == (3, 0, None)
    for box in (lifted["object_box"], laid["subject_box"]):
        assert {name: pytest.approx(value) for name, value in box.items()} == best


def test_every_relation_is_one_triplet_of_its_concepts(store: Store) -> None:
    """Of a real extraction, against the tables by hand."""
    tables = {name: ask(store, f"FROM {name}") for name in ("concepts", "boxes", "triplets")}
    by_id = {row["concept_id"]: row for row in tables["concepts"]}
    relations = {name for name, row in by_id.items() if row["kind"] == "relation"}
    assert sorted(row["concept_id"] for row in tables["triplets"]) == sorted(relations)
    for row in tables["triplets"]:
        relation = by_id[row["concept_id"]]
        for end in ("subject", "object"):
            other = by_id.get(relation[f"{end}_id"], {"lemma": None, "concept_id": None})
            found = [box for box in tables["boxes"] if box["concept_id"] == other["concept_id"]]
            assert (row[end], row[f"{end}_boxes"]) == (other["lemma"], len(found))
            best = max((box["score"] for box in found), default=None)
            assert (row[f"{end}_box"] or {"score": None})["score"] == best


def test_an_image_is_one_row_with_its_captions_and_counts(made: Store) -> None:
    first, second = ask(made, "FROM images ORDER BY key")
    assert (first["key"], first["captions"], first["samples"], first["ok"]) == ("0000", [CAPTION], 2, 1)
    counts = ("objects", "attributes", "relations", "boxes")
    assert [first[name] for name in counts] == [2, 1, 2, 3]
    assert (second["key"], second["captions"], second["samples"]) == ("0002", ["nothing"], 1)
    assert [second[name] for name in counts] == [0, 0, 0, 0]


def test_a_negative_stands_beside_its_caption(made: Store, store: Store) -> None:
    (row,) = ask(made, "FROM negatives")
    assert (row["sample_id"], row["kind"]) == ("d/a/0000/0", "replace_attribute")
    assert (row["caption"], row["negative"]) == (CAPTION, NEGATIVE)
    assert ask(store, "FROM negatives") == []


def test_concept_boxes_say_of_what_they_are(made: Store) -> None:
    found = ask(made, "SELECT DISTINCT kind, lemma, text, role FROM concept_boxes ORDER BY ALL")
    assert [tuple(row.values()) for row in found] == [
        ("attribute", "red", "red", "owner"),
        ("object", "ball", "the red ball", "self"),
        ("relation", "from", "from", "subject"),
        ("relation", "pick up", "picks", "object"),
    ]


# What the view was before it had words.
BOXES_OF_CONCEPTS = """
    SELECT c.concept_id, kind, role, object_concept_id, boxes.* EXCLUDE (concept_id)
    FROM (SELECT concept_id, kind, 'self' AS role, concept_id AS object_concept_id FROM concepts
          WHERE part = 0 AND kind = 'object'
          UNION ALL SELECT concept_id, kind, 'owner', owner_id FROM concepts WHERE part = 0 AND kind = 'attribute'
          UNION ALL SELECT concept_id, kind, 'subject', subject_id FROM concepts WHERE part = 0 AND kind = 'relation'
          UNION ALL SELECT concept_id, kind, 'object', object_id FROM concepts WHERE part = 0 AND kind = 'relation') c
    JOIN boxes ON boxes.concept_id = object_concept_id ORDER BY ALL"""


def test_concept_boxes_are_the_rows_that_they_were(made: Store, store: Store) -> None:
    for one in (made, store):
        now = ask(one, "SELECT * EXCLUDE (lemma, text) FROM concept_boxes ORDER BY ALL")
        assert now == ask(one, BOXES_OF_CONCEPTS) != []


def test_macros(made: Store) -> None:
    rows = ask(made, "SELECT concept_id, kind, x0 FROM boxes_of('Red')")
    assert [row["concept_id"] for row in rows] == ["d/a/0000/0/2"] * 3
    assert ask(made, "FROM examples('pick up')")[0]["caption"] == CAPTION
    assert len(ask(made, "FROM examples('ball', n := 0)")) == 0
    (row,) = ask(
        made, "SELECT max(iou(a, b)) AS most FROM boxes a JOIN boxes b ON a.x0 <> b.x0 OR a.y0 <> b.y0"
    )
    assert row == {"most": 0}
    left, right = "{'x0': 0, 'y0': 0, 'x1': 1, 'y1': 1}", "{'x0': 0.5, 'y0': 0, 'x1': 1.5, 'y1': 1}"
    (row,) = ask(made, f"SELECT iou({left}, {right}) AS some, iou({left}, {left}) AS whole")
    assert row == {"some": pytest.approx(1 / 3), "whole": 1}


def test_examples_are_the_same_each_time(store: Store) -> None:
    (lemma,) = ask(store, "SELECT mode(lemma) AS lemma FROM concepts WHERE kind = 'attribute'")
    asked = f"FROM examples('{lemma['lemma']}', n := 4)"
    first = ask(store, asked)
    assert len(first) == 4
    assert all(row["lemma"] == lemma["lemma"] for row in first)
    assert ask(store, asked) == first


QUESTIONS = (
    *(f"SELECT * FROM {view} ORDER BY ALL" for view in VIEWS),
    "FROM boxes_of('ball') ORDER BY ALL",
    "FROM examples('ball') ORDER BY ALL",
)


def doors(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    yield connect(store, sealed=True)
    yield macco.connect(macco.open_store(store.url))
    outside = duckdb.connect()
    outside.execute(Path(store.url, "views.sql").read_text())
    yield outside


def test_they_are_wherever_sql_is_offered(made: Store, capfd: pytest.CaptureFixture[str]) -> None:
    expected = {sql: connect(made).execute(sql).fetchall() for sql in QUESTIONS}
    assert all(expected.values())
    for door in doors(made):
        assert {sql: door.execute(sql).fetchall() for sql in QUESTIONS} == expected
    for sql in QUESTIONS:
        query(made, sql, "json", read_only=True)
        assert len(capfd.readouterr().out.splitlines()) == len(expected[sql])


@pytest.mark.parametrize("name", [*VIEWS, *TABLE_MACROS])
def test_one_alone_is_made_with_what_it_is_made_of(made: Store, name: str) -> None:
    (sql,) = (one for one in QUESTIONS if re.search(rf"\b{name}\b", one))
    alone = connect(made, views=(name,))
    assert alone.execute(sql).fetchall() == connect(made).execute(sql).fetchall()
    there = {view for (view,) in alone.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    assert {*VIEWS} & there == made_of((name,)) & {*VIEWS}


def test_a_condition_may_use_them(tmp_path: Path) -> None:
    store = Store.open(drawn_store(tmp_path, shards=1, images=4))
    gallery = Gallery(store)
    gallery.fill()
    for where, count in (
        ("sample_id IN (SELECT sample_id FROM triplets WHERE subject = 'dog' AND key > '000000001')", 2),
        ("sample_id IN (SELECT sample_id FROM boxes_of('sofa') WHERE row = 0)", 1),
        ("key IN (SELECT key FROM images WHERE relations > 1)", 0),
        ("sample_id IN (SELECT sample_id FROM negatives)", 0),
    ):
        assert gallery.figures(Filter(where=where))["total"] == count, where
    with pytest.raises(UserError, match="boxes_of"):  # training has the tables alone
        build(
            store, Selection.of("sample_id IN (SELECT sample_id FROM boxes_of('sofa'))", MaskConfig()), print
        )


def test_the_page_lists_what_there_is() -> None:
    assert (ROOT / "docs" / "sql.md").read_text() == reference.page()


def test_the_page_lists_every_view_and_macro(made: Store) -> None:
    page = reference.page()
    with connect(made) as connection:
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        asked = (
            "SELECT function_name FROM duckdb_functions() WHERE function_type LIKE '%macro' AND NOT internal"
        )
        macros = connection.execute(asked).fetchall()
        # What `connect` itself reads from is no view of the store.
        views = [
            name
            for (name,) in views
            if name not in ("committed", "loose", *(f"no_{table}" for table in TABLES))
        ]
        assert all(f"## {name}\n" in page for name in views)
        assert all(f"| {name}(" in page for (name,) in macros)
        assert {*views} == {*VIEWS, "tags"}
        for name in views:
            kinds = [row[:2] for row in connection.execute(f"DESCRIBE {name}").fetchall()]
            assert [
                (column, kind) for column, kind, _ in reference.columns(reference.empty(), name)
            ] == kinds, name


def test_units_and_paraphrases_stand_beside_their_caption(tmp_path: Path, store: Store) -> None:
    url = drawn_store(tmp_path, shards=2, images=2)
    made = Store.open(url)
    assert ask(made, "FROM units") == ask(made, "FROM paraphrases") == ask(store, "FROM units") == []
    rows = write_units(made, 0, lambda line: None)
    assert ask(made, "SELECT count(*) AS n FROM units") == [{"n": rows}]
    (sample,) = ask(made, "FROM samples ORDER BY sample_id LIMIT 1")
    line = {
        "sample_id": sample["sample_id"],
        "paraphrases": ["A dog rests."],
        "units": [{"text": "a dog", "foils": ["a cat"]}, {"text": "a sofa"}],
    }
    (tmp_path / "texts.jsonl").write_text(json.dumps(line))
    import_texts(made, str(tmp_path / "texts.jsonl"), lambda said: None)
    ids = {name: sample[name] for name in ("sample_id", "dataset", "shard", "key", "caption_id", "caption")}
    unit = ids | {"kind": "entity"}
    expected = [
        unit | {"unit": 0, "text": "a dog", "foil_kind": "imported", "foil": "a cat"},
        unit | {"unit": 1, "text": "a sofa", "foil_kind": None, "foil": None},
    ]
    for connection in (connect(made), duckdb.connect()):
        with connection:
            if connection.execute(
                "SELECT count(*) FROM duckdb_views() WHERE view_name = 'units'"
            ).fetchone() == (0,):
                connection.execute((Path(url) / "views.sql").read_text())
            assert dicts(connection.execute("FROM units ORDER BY unit")) == expected
            assert dicts(connection.execute("FROM paraphrases")) == [ids | {"paraphrase": "A dog rests."}]


@pytest.mark.processes
@pytest.mark.slow
def test_the_first_rows_of_each_view_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some thousands of captions: DuckDB 2.0.0 waited for ever, with one thread or many, from about 15,000 on."""
    url = str(tmp_path / "s")
    monkeypatch.setattr(os, "fsync", os.fsync)  # which the benchmark does without
    build_shards(url, 25, 1000, together=False)
    for view in VIEWS:
        asked = Command("macco-prep", "sql", url, f"FROM {view} LIMIT 9", "--format", "json")
        assert asked.wait(120) == 0, asked.err
        assert len(asked.out.splitlines()) == (0 if view in TEXTS else 9), view
