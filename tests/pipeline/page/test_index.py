"""What the page counts and shows is what SQL on the store says."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macco.pipeline.errors import UserError
from macco.pipeline.page.condition import meeting
from macco.pipeline.page.filter import SORTS, Filter
from macco.pipeline.page.gallery import Gallery
from macco.pipeline.page.index import _LEVEL, KINDS, fill
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.exchange.compact import compact
from macco.train.config import MaskConfig
from macco.train.data.index import build
from macco.train.data.selection import Selection
from tests.support.examples import examples
from tests.support.pages import captioned_store, hostile_store


@pytest.fixture(scope="module")
def gallery(store: Store) -> Gallery:
    made = Gallery(store)
    made.fill()
    return made


@pytest.fixture(scope="module")
def views(store: Store) -> Iterable[duckdb.DuckDBPyConnection]:
    with connect(store, sealed=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def captioned(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Gallery, duckdb.DuckDBPyConnection]]:
    """Two captions an image, of things of their own; of some one failed, of some one is tagged."""
    made = Gallery(captioned_store(tmp_path_factory.mktemp("captioned")))
    made.fill()
    with connect(made.store, sealed=True) as connection:
        yield made, connection


def shown(gallery: Gallery, filter: Filter) -> list[tuple[str, str]]:
    figures: list[dict[str, Any]] = []
    while True:
        page = gallery.figures(filter, len(figures), 7)
        figures += page["figures"]
        if not page["figures"]:
            assert len(figures) == page["total"]
            return [(figure["shard"], figure["key"]) for figure in figures]


@cache
def lemmas(gallery: Gallery) -> list[str]:
    return [f"{kind}:{lemma}" for kind, lemma in gallery.index.terms]


WHERES = [
    "",
    "caption LIKE '%red%'",
    "kind = 'relation' AND score >= 0.6",
    "lemma = 'robot'",
    "lemma IN ('dog', 'cup') -- what is meant\n",
    "1 -- one",
    "lemma = 'dog' OR lemma = 'cat' /* all of them */",
    "score < 0.5",
    "lemma IS NULL",
    "status = 'missing_caption' AND row > 0",
    "kind = 'attribute' AND shard <> '00001' AND score > 0.3",
]


def filters(gallery: Gallery) -> st.SearchStrategy[Filter]:
    some = lambda values: st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)  # noqa: E731
    return st.builds(
        Filter,
        kind=some(KINDS),
        concept=some(lemmas(gallery)),
        shard=some(gallery.index.shards),
        status=some(("ok", "image_corrupt", "missing_caption")),
        tag=some(("good",)),
        score=st.none() | st.integers(0, 100),
        where=st.sampled_from(WHERES),
        sort=st.sampled_from(SORTS),
        seed=st.integers(0, 3),
    )


@pytest.mark.parametrize("captions", ["one", "two"])
@examples(25, 500)
@given(data=st.data())
def test_a_filter_shows_what_its_condition_says(
    data: st.DataObject,
    captions: str,
    gallery: Gallery,
    views: duckdb.DuckDBPyConnection,
    captioned: tuple[Gallery, duckdb.DuckDBPyConnection],
) -> None:
    """The page and `--where` agree: what is copied from the one means the same in the other."""
    if captions == "two":
        gallery, views = captioned
    filter = data.draw(filters(gallery))
    found = shown(gallery, filter)
    sql = f"SELECT DISTINCT shard, key FROM {meeting(views, gallery.where(filter))}"
    assert sorted(found) == sorted(views.execute(sql).fetchall())
    if filter.sort == "store":
        assert found == sorted(found)
    if filter.sort == "score":
        about = replace(filter, where="", status=(), shard=(), tag=()).sql() or "true"
        sql = f"SELECT shard, key, max(score) FROM concept_boxes WHERE {about} GROUP BY ALL"
        best = {(shard, key): score for shard, key, score in views.execute(sql).fetchall()}
        scores = [best.get(one, -1) for one in found]
        assert scores == sorted(scores, reverse=True)
    assert found == shown(gallery, filter)


ATOMS = (
    "kind = 'object'", "lemma = 'robot'", "lemma IS NULL", "head <> lemma", "score > 0.5", "score IS NULL", "x0 < 0.3",
    "row > 3", "caption LIKE '%red%'", "status = 'ok'", "shard <> '00001'", "coalesce(score, 1) > 0.9",
    "kind || shard > 'o'", "score < 0.9 OR kind = 'relation'", "sample_id IN (SELECT sample_id FROM tags)",
)  # fmt: skip


@examples(40, 500)
@given(
    atoms=st.lists(
        st.tuples(st.sampled_from(("", "NOT ")), st.sampled_from(ATOMS)), min_size=1, max_size=3
    ).map(lambda some: [f"{sign}({atom})" for sign, atom in some]),
    how=st.sampled_from((" AND ", " OR ")),
)
def test_a_condition_is_met_by_any_row_of_a_caption_with_its_concepts_and_boxes(
    atoms: list[str], how: str, captioned: tuple[Gallery, duckdb.DuckDBPyConnection]
) -> None:
    where, views = how.join(atoms), captioned[1]
    rows = """
        samples s LEFT JOIN (SELECT concept_id, sample_id AS of, kind, lemma, head,
            unnest(CASE kind WHEN 'object' THEN [concept_id] WHEN 'attribute' THEN [owner_id]
                             ELSE [subject_id, object_id] END) AS thing FROM concepts) c ON c.of = s.sample_id
        LEFT JOIN (SELECT concept_id AS thing, score, x0 FROM boxes) b ON b.thing = c.thing"""
    expected = views.execute(f"SELECT DISTINCT s.sample_id FROM {rows} WHERE {where}").fetchall()
    assert sorted(views.execute(f"SELECT sample_id FROM {meeting(views, where)}").fetchall()) == sorted(
        expected
    )


@examples(10, 250)
@given(data=st.data())
def test_the_sliders_counts_are_those_of_each_threshold(
    data: st.DataObject, gallery: Gallery, views: duckdb.DuckDBPyConnection
) -> None:
    filter = replace(data.draw(filters(gallery)), where="", status=(), shard=(), tag=())
    scores = gallery.scores(filter)
    for at in data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=4)):
        assert scores["images"][at] == len(shown(gallery, replace(filter, score=at)))
        asked = Filter(kind=filter.kind, concept=filter.concept).sql() or "true"
        if scores["boxes"] is not None:
            sql = (
                "SELECT count(*) FROM boxes JOIN concepts USING (concept_id) "
                f"WHERE part = 0 AND score >= {at / 100} AND {asked}"
            )
            assert (scores["boxes"][at],) == views.execute(sql).fetchone()


def test_scores_at_a_threshold_are_on_the_side_that_sql_puts_them(tmp_path: Any) -> None:
    """0.07 as float32 is not 0.07: what the slider says is what `score >= 0.07` finds."""
    scores = [np.float32(at / 100) for at in range(101)]
    scores += [np.nextafter(score, np.float32(way)) for score in scores for way in (0, 1)]
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT unnest($1)::FLOAT AS score", [[float(one) for one in scores]]
        )
        for at in range(101):
            sql = f"SELECT count(*) FROM t WHERE (score >= {at / 100}) <> ({_LEVEL} > {at})"
            assert connection.execute(sql).fetchone() == (0,), at


def test_facets_count_beside_the_other_facets(gallery: Gallery) -> None:
    whole = gallery.facets(Filter())
    assert whole["total"] == whole["of"] == len(gallery.index) == 24
    name, count = whole["concept"][0]["name"], whole["concept"][0]["count"]
    chosen = gallery.facets(Filter(concept=(name,)))
    assert chosen["total"] == count
    assert sum(chosen["shard"].values()) == count
    assert [row for row in chosen["concept"] if row["name"] != name]  # alternatives stay in sight
    assert [row["name"] for row in gallery.facets(Filter(), like=name.split(":")[1])["concept"]][:1] == [name]


def test_what_is_asked_while_the_store_is_read_is_about_what_is_in(store: Store) -> None:
    made = Gallery(store)
    assert made.figures(Filter())["figures"] == []
    seen = []
    for made.index in fill(store, connect(store, views=False)):
        page = made.figures(Filter(), 0, 100)
        seen.append((page["share"], page["total"]))
        assert len(page["figures"]) == page["total"] == len(made.index)
    assert seen == sorted(seen)
    assert seen[0] == (1 / 6, 4)
    assert seen[-1] == (1.0, 24)


def test_a_compacted_store_has_the_same_page(gallery: Gallery, store: Store, tmp_path: Any) -> None:
    compact(store, str(tmp_path / "compact"))
    other = Gallery(Store.open(str(tmp_path / "compact")))
    other.fill()
    assert other.figures(Filter()) == gallery.figures(Filter())
    assert other.facets(Filter()) == gallery.facets(Filter())


def test_figures_are_the_rows_of_the_store(gallery: Gallery, store: Store) -> None:
    for figure in gallery.figures(Filter(), 0, 100)["figures"]:
        boxes = store.table("boxes", figure["shard"]).to_pylist()
        mine = {
            (box["concept_id"], *(box[n] for n in ("x0", "y0", "x1", "y1")))
            for box in boxes
            if box["key"] == figure["key"]
        }
        drawn = {
            (f"{figure['captions'][caption]['sample_id']}/{number}", *box["corners"])
            for box in figure["boxes"]
            for caption, number in box["of"]
        }
        assert drawn == mine
        for caption in figure["captions"]:
            for concept in caption["concepts"]:
                for start, end in concept["spans"]:
                    assert 0 <= start < end <= len(caption["caption"])


def test_tags_are_kept_in_the_store_and_are_a_condition(tmp_path: Any) -> None:
    store = hostile_store(tmp_path)
    gallery = Gallery(store)
    gallery.fill()
    names = [figure["id"] for figure in gallery.figures(Filter())["figures"]]
    assert gallery.tag(names[0], " good ", True) == ["good"]
    assert gallery.tag(names[1], "it's", True) == ["it's"]
    assert gallery.tag(names[0], "it's", True) == ["good", "it's"]
    assert gallery.tag(names[0], "good", False) == ["it's"]
    filter = Filter(tag=("it's",))
    assert {figure["id"] for figure in gallery.figures(filter)["figures"]} == set(names[:2])
    assert {figure["id"] for figure in gallery.figures(Filter(where=filter.sql()))["figures"]} == set(
        names[:2]
    )
    again = Gallery(Store.open(store.url))
    again.fill()
    assert again.facets(Filter())["tag"] == {"it's": 2}
    assert len(build(store, Selection.of(filter.sql(), MaskConfig()), print)) == 2
    one = replace(filter, kind=("object",), status=("ok",), where="row = 0 AND lemma = 'sofa' -- the first")
    assert [figure["id"] for figure in gallery.figures(one)["figures"]] == names[:1]
    assert len(build(store, Selection.of(gallery.where(one), MaskConfig()), print)) == 1
    shouted = "sample_id IN (SELECT sample_id FROM SAMPLES WHERE row = 0)"  # names have no case
    quiet = shouted.replace("SAMPLES", "samples")
    counts = {len(build(store, Selection.of(where, MaskConfig()), print)) for where in (shouted, quiet)}
    assert len(counts) == 1
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one emoji, of three and what joins them
    assert gallery.tag(names[2], family, True) == [family]
    for wrong in ("", "a\nb", "x" * 101, "a\u2028b", "\u200d", "\ud800", "a\0b", "\x1b[31m"):
        with pytest.raises(UserError, match="a tag is"):
            gallery.tag(names[0], wrong, True)


@pytest.mark.parametrize(
    "given",
    [
        ("kind", "thing"),
        ("status", "?"),
        ("score", "much"),
        ("score", "2"),
        ("sort", "up"),
        ("concept", "dog"),
        ("seed", "x"),
        ("wher", "true"),
        ("__proto__", ""),
    ],
)
def test_an_address_that_means_nothing_is_a_users_mistake(given: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=given[0]):
        Filter.of([given])
