"""A store as a dataset that `load_dataset` opens offline."""

import socket
from pathlib import Path

import pytest
import yaml

from macco.pipeline.errors import UserError
from macco.pipeline.query import query
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.exchange.hugging_face import export_hugging_face

datasets = pytest.importorskip("datasets")


def test_it_opens_offline_with_the_declared_features(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    rows = export_hugging_face(store, tmp_path / "concepts", 0.35, said.append)
    monkeypatch.setattr(socket.socket, "connect", lambda *given: pytest.fail("it asks the network"))
    sizes = 0
    for name, schema in TABLES.items():
        opened = datasets.load_dataset(
            str(tmp_path / "concepts"), name, split="train", cache_dir=str(tmp_path / "cache")
        )
        where = "WHERE score >= 0.35" if name == "boxes" else ""
        (ours,) = query(store, f"SELECT count(*) AS n FROM {name} {where}").to_pylist()
        assert len(opened) == ours["n"]
        assert list(opened.features) == schema.names
        assert {field: feature.pa_type for field, feature in opened.features.items()} == {
            field.name: field.type for field in schema
        }
        sizes += len(opened)
    assert rows == sizes
    unnamed = datasets.load_dataset(
        str(tmp_path / "concepts"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert list(unnamed.features) == TABLES["samples"].names
    (line,) = said
    assert line.startswith("to publish it: hf upload ")


def test_the_card_says_what_it_is_and_nothing_of_the_machine(store: Store, tmp_path: Path) -> None:
    export_hugging_face(store, tmp_path / "concepts", 0.35, lambda line: None)
    card = (tmp_path / "concepts" / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    assert [one["config_name"] for one in yaml.safe_load(header)["configs"]] == list(TABLES)
    settings = store.description()["settings"]
    for told in (
        settings["parser_fingerprint"],
        settings["detector_fingerprint"],
        "Licences",
        "images are not in it",
    ):
        assert told in text
    tables = datasets.load_dataset(
        str(tmp_path / "concepts"), "samples", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert not [name for name in tables["source"] if "/" in name]
    assert str(tmp_path.parent.parent) not in card


def test_a_table_without_a_row_is_left_out_and_a_store_without_any_refused(
    store: Store, tmp_path: Path
) -> None:
    export_hugging_face(store, tmp_path / "few", 1.0, lambda line: None)
    assert sorted(one.name for one in (tmp_path / "few" / "data").iterdir()) == ["concepts", "samples"]
    assert datasets.get_dataset_config_names(str(tmp_path / "few")) == ["samples", "concepts"]
    none = Store.create(str(tmp_path / "store"), {"parser": "p"})
    with pytest.raises(UserError, match="no row"):
        export_hugging_face(none, tmp_path / "none", 0.35, lambda line: None)
    assert not (tmp_path / "none").exists()
