"""Foils and captions that were made elsewhere."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.cli import app
from macco.train.data.elsewhere import import_texts
from macco.train.data.negatives import write_negatives
from macco.train.data.units import write_units
from tests.support.drawn import CAPTION, drawn_store

ID = "d/00000/{:09}/0"


def written(tmp_path: Path, lines: list[Any]) -> str:
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return str(file)


def test_what_fits_is_taken_and_what_does_not_is_counted(tmp_path: Path) -> None:
    url, said = drawn_store(tmp_path, shards=2, images=3), list[str]()
    lines = [
        {
            "sample_id": ID.format(0),
            "negatives": {"swap_object": "A small sofa on a dog"},
            "paraphrases": ["Dog!"],
        },
        {"sample_id": ID.format(1), "units": [{"text": "dog", "foils": ["cat", "cow"]}, {"text": "sofa"}]},
        "",
        "{",
        {"sample_id": ID.format(9)},
        {"sample_id": ID.format(1), "paraphrases": ["again"]},
        {"sample_id": ID.format(2), "negatives": {"swap_object": CAPTION.upper()}},
        {"sample_id": ID.format(2), "foils": ["no such key"]},
        {"sample_id": ID.format(2), "negatives": {"no such kind": "A"}},
        {"sample_id": ID.format(2), "paraphrases": [" "]},
    ]
    found = import_texts(Store.open(url), written(tmp_path, lines), said.append)
    assert found == {"negatives": 1, "units": 3, "paraphrases": 1}
    assert sum(int(line.split()[0]) for line in said) == 7
    for table in found:
        other = pq.read_table(f"{url}/{table}/00001.parquet")
        assert other.num_rows == 0
    units = pq.read_table(f"{url}/units/00000.parquet").to_pylist()
    assert [(row["unit"], row["text"], row["foil"]) for row in units] == [
        (0, "dog", "cat"), (0, "dog", "cow"), (1, "sofa", None),
    ]  # fmt: skip


def test_a_file_of_nothing_is_a_mistake(tmp_path: Path) -> None:
    url = drawn_store(tmp_path, shards=1, images=2)
    for lines in (
        [],
        ["{"],
        [{"sample_id": "d/00000/no/0", "paraphrases": ["A"]}],
        [{"sample_id": ID.format(0)}],
    ):
        with pytest.raises(UserError, match="has nothing for"):
            import_texts(Store.open(url), written(tmp_path, lines), lambda line: None)
    with pytest.raises(UserError, match="cannot be read"):
        import_texts(Store.open(url), str(tmp_path / "none"), lambda line: None)
    assert not (Path(url) / "paraphrases").exists()


def test_the_command_says_how_many(tmp_path: Path) -> None:
    url = drawn_store(tmp_path, shards=1, images=2)
    file = written(tmp_path, [{"sample_id": ID.format(0), "paraphrases": ["A dog rests."]}])
    done = CliRunner().invoke(app, ["import-texts", url, file])
    assert done.exit_code == 0
    assert done.output.strip() == f"1 rows in {url}/paraphrases"


def test_what_is_replaced_and_which_lines_are_left_out_is_said(tmp_path: Path) -> None:
    url = drawn_store(tmp_path, shards=2, images=4)
    store, said = Store.open(url), list[str]()
    for write in (write_negatives, write_units):
        made = write(store, 0, lambda line: None)
        table = write.__name__.removeprefix("write_")
        write(store, 0, said.append)
        assert said[0] == f"{url} has {made:,} rows of {table}, made or imported: others take their places"
        said.clear()
    before = sum(pq.read_metadata(file).num_rows for file in Path(url, "negatives").glob("*.parquet"))
    good = {"sample_id": ID.format(0), "negatives": {"swap_object": "A small sofa on a dog"}}
    import_texts(store, written(tmp_path, ["", "{", good, good, *["{"] * 11]), said.append)
    assert f"{url} has {before:,} rows of negatives, made or imported: others take their places" in said
    assert any(line.endswith("a line already (line 4)") for line in said)
    assert any(line.endswith("(line 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, ...)") for line in said)
    assert not any("units" in line for line in said)


def test_a_mark_of_the_byte_order_costs_no_line(tmp_path: Path) -> None:
    url = drawn_store(tmp_path, shards=1, images=2)
    line = json.dumps({"sample_id": ID.format(0), "paraphrases": ["A dog rests."]})
    file = written(tmp_path, ["\ufeff" + line])
    assert import_texts(Store.open(url), file, lambda line: None) == {"paraphrases": 1}
