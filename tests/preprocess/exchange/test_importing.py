"""The authors' TSV at its own size and with its own oddities."""

from pathlib import Path

import pytest

from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.exchange import importing
from macco.preprocess.exchange.importing import import_tsv
from macco.preprocess.exchange.records import COLUMNS
from tests.support.bundled import write_tsv

TABLES = ("samples", "concepts", "boxes")


def rows(store: str) -> list[list[tuple[object, ...]]]:
    connection = connect(Store.open(store))
    return [connection.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in TABLES]


def test_processes_make_the_same_rows_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "ROWS_PER_SHARD", 7)
    tsv = write_tsv(tmp_path)
    assert import_tsv(tsv, str(tmp_path / "one"), str(tmp_path)) == {"ok": 40}
    store = Store.open(str(tmp_path / "one"))
    store.remove(f"shards/{tsv.stem}-00002.json")
    assert import_tsv(tsv, str(tmp_path / "one"), str(tmp_path), workers=2) == {"ok": 7}
    assert import_tsv(tsv, str(tmp_path / "two"), str(tmp_path), workers=2) == {"ok": 40}
    assert rows(str(tmp_path / "one")) == rows(str(tmp_path / "two"))


def test_captions_of_one_image_are_known_as_siblings(tmp_path: Path) -> None:
    """Training tells an image by where it lies: its captions are no wrong answers to each other."""
    import_tsv(write_tsv(tmp_path), str(tmp_path / "store"), str(tmp_path))
    found = connect(Store.open(str(tmp_path / "store"))).execute(
        'SELECT count(*), count(DISTINCT hash(source, member, "offset")) FROM samples'
    )
    assert found.fetchall() == [(40, 38)]


def test_every_odd_literal_is_a_counted_row(tmp_path: Path) -> None:
    odd = {
        "object_list": ["[1]", "'dog'", "[", "[None]", "dog"],
        "relation_attribute_phrase_bbox_list": ["[{'a': [[1, 2]]}]", "[['a']]", "{'a': 1}", "[{'a': None}]"],
    }
    lines = ["\t".join(COLUMNS)]
    for column, cells in odd.items():
        for cell in cells:
            row = dict.fromkeys(COLUMNS, "[]") | {"title": "a dog", "filepath": "x.jpg", column: cell}
            lines.append("\t".join(row.values()))
    (tmp_path / "odd.tsv").write_text("\n".join(lines) + "\n")
    assert import_tsv(tmp_path / "odd.tsv", str(tmp_path / "store"), str(tmp_path)) == {"bad_row": 9}
