"""Boxes of a second detector beside a store's own: chosen, never mixed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.query import query
from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.train.config import DataConfig, MaskConfig
from macco.train.data.index import build
from macco.train.data.rows import Fetch
from macco.train.data.selection import Selection
from tests.support.pages import held

COUNT = "SELECT count(*) AS n FROM {}"


def give(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def count(store: Store, what: str) -> int:
    return int(query(store, COUNT.format(what)).to_pylist()[0]["n"])


@pytest.fixture(scope="module")
def two(corpus: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with boxes of two detectors: its own, and the first half of these, turned upside down, from a file."""
    folder = tmp_path_factory.mktemp("two")
    rows = query(
        store,
        "SELECT DISTINCT c.shard, c.key AS image, phrase, x0, 1 - y1 AS y0, x1, 1 - y0 AS y1, score "
        "FROM boxes b JOIN concepts c USING (concept_id) WHERE part = 0 AND score > 0.4",
    )
    pq.write_table(rows, folder / "turned.parquet")
    shutil.copytree(store.url, folder / "store")
    given = ["--workers", 0, "--detector", f"boxes:{folder}/turned.parquet", "--as", "turned"]
    said = give("extract", "--reground", "--out", folder / "store", *given)
    assert "6 shards grounded, 0 were there, 0 failed" in said
    assert "images in the file" in said
    said = give("extract", "--reground", "--out", folder / "store", *given)
    assert "0 shards grounded, 6 were there" in said
    return folder / "store"


def test_sql_tells_whose_boxes_they_are(two: Path, store: Store, tmp_path: Path) -> None:
    opened = Store.open(str(two))
    by = {row["detector"]: row["n"] for row in query(opened, f"{ALL} GROUP BY 1").to_pylist()}
    own, turned = count(store, "boxes"), count(store, "boxes WHERE score > 0.4")
    assert by == {"tiny": own, "turned": turned}
    assert count(opened, "boxes") == own
    assert count(opened, "concept_boxes") == count(store, "concept_boxes")
    opened.choose_boxes("turned")
    assert count(opened, "boxes") == turned
    assert count(opened, "concept_boxes") == count(store, "concept_boxes WHERE score > 0.4")
    assert {row["detector"]: row["n"] for row in query(opened, f"{ALL} GROUP BY 1").to_pylist()} == by
    asked = ["--detector", "turned", "--format", "json", "--out", tmp_path / "n.json"]
    give("sql", two, COUNT.format("boxes"), *asked)
    assert json.loads((tmp_path / "n.json").read_text()) == {"n": turned}
    assert "no boxes of 'other'" in give_wrong("sql", two, "SELECT 1", "--detector", "other")


ALL = "SELECT detector, count(*) AS n FROM all_boxes"


def give_wrong(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        give(*arguments)
    return str(caught.value)


def test_the_duckdb_command_has_them_too(two: Path) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute((two / "views.sql").read_text())
        found = dict(connection.execute(f"{ALL} GROUP BY 1").fetchall())
    assert found.keys() == {"tiny", "turned"}


def test_with_two_somebody_chooses(two: Path, tmp_path: Path) -> None:
    for command in (
        ["stats"],
        ["report", "--json"],
        ["view", "--out", tmp_path / "v.html"],
        ["export", "--out", tmp_path / "c.json"],
    ):
        told = give_wrong(command[0], two, *command[1:])
        assert "boxes of tiny, turned: choose one with --detector" in told
    boxes = {}
    for detector in ("tiny", "turned"):
        give("export", two, "--out", tmp_path / "c.json", "--detector", detector)
        boxes[detector] = len(json.loads((tmp_path / "c.json").read_text())["annotations"])
        give("view", two, "--out", tmp_path / "v.html", "--detector", detector)
        assert sum(len(one["boxes"]) for one in held(tmp_path / "v.html")) > 0
        give(
            "export",
            two,
            "--out",
            tmp_path / f"{detector}.tsv",
            "--format",
            "macco-tsv",
            "--detector",
            detector,
        )
        report = json.loads(give("report", two, "--json", "--detector", detector))
        opened = Store.open(str(two)).choose_boxes(detector)
        assert (report["detector"], report["counts"]["boxes"]) == (detector, count(opened, "boxes"))
        assert sum(report["boxes"]["scores"]["boxes"]) == report["counts"]["boxes"]
        assert report["settings"] == opened.made_with
    assert boxes["tiny"] > boxes["turned"] > 0
    assert (tmp_path / "tiny.tsv").read_text() != (tmp_path / "turned.tsv").read_text()
    status = json.loads(give("status", two, "--json"))
    assert status["boxes"]["turned"]["shards"] == 6


def samples(store: Path, detector: str, where: str = "") -> Iterator[Any]:
    data = DataConfig(store=str(store), detector=detector, where=where)
    selection = Selection.of(where, MaskConfig(box_score=0.45))
    opened = Store.open(data.store).choose_boxes(detector)
    index = build(opened, selection, lambda line: None)
    fetched = Fetch(data, index, selection, 0, 0.45)(range(len(index.starts) - 1), 0, 0)
    for slot in range(len(index)):
        sample = fetched[slot]
        yield sample.id, sorted(map(tuple, sample.regions.round(4).tolist())), sample.concepts


def test_training_takes_the_boxes_it_is_told(two: Path, store: Store) -> None:
    alone, own, turned = (
        list(samples(Path(store.url), "")),
        list(samples(two, "tiny")),
        list(samples(two, "turned")),
    )
    assert [one[:2] for one in alone] == [one[:2] for one in own]
    assert any(regions for _, regions, _ in own)
    for (name, theirs, concepts), (same, mine, others) in zip(own, turned, strict=True):
        assert name == same
        upside = sorted((x0, round(1 - y1, 4), x1, round(1 - y0, 4), s) for x0, y0, x1, y1, s in theirs)
        assert len(upside) == len(mine)
        for a, b in zip(upside, mine, strict=True):
            assert a == pytest.approx(b, abs=2e-4)
        assert [len(c.boxes) for c in concepts] == [len(c.boxes) for c in others]
    with pytest.raises(UserError, match="choose one with"):
        list(samples(two, ""))
    prints = {
        name: build(chosen(two, name), Selection.of("", MaskConfig()), str).fingerprint for name in NAMES
    }
    assert prints["tiny"] != prints["turned"]
    assert prints["tiny"] == build(store, Selection.of("", MaskConfig()), str).fingerprint


NAMES = ("tiny", "turned")


def chosen(store: Path, name: str) -> Store:
    return Store.open(str(store)).choose_boxes(name)


def test_a_set_has_its_own_settings_and_name(two: Path, tmp_path: Path) -> None:
    for given, told in (
        (["--as", "turned", "--box-threshold", 0.2], "were made with box_threshold|were made with detector"),
        (["--as", "tiny"], "what the store's own boxes are called"),
        ([], "what the store's own boxes are called"),
        (["--as", "a/b"], "--as is"),
        (["--shards", "x.tar", "--as", "x"], "leave --shards"),
        (["--detector", "none", "--as", "x"], "makes none"),
    ):
        with pytest.raises(UserError, match=told):
            give("extract", "--reground", "--out", two, "--workers", 0, *given)


def test_a_shard_that_is_done_again_loses_them(two: Path, corpus: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(two, tmp_path / "store")
    one = Store.open(str(copy))
    shard = sorted(one.committed())[0]
    with_settings = Store.create(str(copy), one.description()["settings"])
    with_settings.commit(
        shard, {name: one.table(name, shard) for name in ("samples", "concepts", "boxes")}, {"shard": shard}
    )
    with_settings.close()
    assert one.grounded("turned") == one.committed() - {shard}
    with pytest.raises(UserError, match="go on with macco-prep extract --reground"):
        Store.open(str(copy)).choose_boxes("turned")


def test_another_threshold_of_the_same_detector(store: Store, tmp_path: Path) -> None:
    copy = shutil.copytree(store.url, tmp_path / "store")
    give(
        "extract",
        "--reground",
        "--out",
        copy,
        "--workers",
        0,
        "--device",
        "cpu",
        "--box-threshold",
        0.02,
        "--as",
        "low",
    )
    low = chosen(copy, "low")
    assert count(low, "boxes") > count(store, "boxes")
    same = "SELECT concept_id, round(score, 4) AS s FROM boxes WHERE score > 0.3 ORDER BY ALL"
    assert query(low, same).to_pylist() == query(store, same).to_pylist()
    give("compact", copy, "--out", tmp_path / "compact")
    assert count(chosen(tmp_path / "compact", "low"), "boxes") == count(low, "boxes")
    give("compact", copy)
    packed = chosen(copy, "low")
    assert count(packed, "boxes") == count(low, "boxes")
    assert [one[:2] for one in samples(copy, "low")] == [
        one[:2] for one in samples(tmp_path / "compact", "low")
    ]
