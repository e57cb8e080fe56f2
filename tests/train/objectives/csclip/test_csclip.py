"""CS-CLIP: its losses against the authors' numbers, units of the store with their foils, and what is ours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize
from macco.train.cli import app
from macco.train.config import DataConfig
from macco.train.data.loader import open_loader
from macco.train.data.negatives import Vocabulary, write_negatives
from macco.train.data.rows import Unit
from macco.train.data.units import units, write_units
from macco.train.objectives.csclip.batches import UnitPairs, draw_units
from macco.train.objectives.csclip.model import CsclipModel
from macco.train.objectives.csclip.settings import CsclipConfig
from tests.check_vectors import check
from tests.support import DATA
from tests.support.objective_batches import unit_batch
from tests.support.tiny import tiny_clip

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")


def test_losses_and_gradients_are_the_authors() -> None:
    rows = check(DATA / "vectors" / "csclip.safetensors")
    assert len(rows) == 6 * (3 + 3 * 4)
    assert [row for row in rows if not row.error <= 1e-9] == []


CAPTION = "a small red woman and a black cat behind a man"


def concepts() -> list[dict[str, Any]]:
    """Of CAPTION: three objects, three attributes, "behind" between the cat and the man."""
    found = []
    for name, kind, text, phrase, owner, ends in [
        ("0", "object", "woman", "small red woman", None, (None, None)),
        ("1", "object", "cat", "black cat", None, (None, None)),
        ("2", "object", "man", "man", None, (None, None)),
        ("3", "attribute", "small", None, "0", (None, None)),
        ("4", "attribute", "red", None, "0", (None, None)),
        ("5", "attribute", "black", None, "1", (None, None)),
        ("6", "relation", "behind", None, None, ("1", "2")),
    ]:
        start = CAPTION.index(f" {text} ") + 1 if text != "man" else len(CAPTION) - 3
        place = {"start": start, "end": start + len(text), "head_start": start, "text": text, "head": text}
        links = {"owner_id": owner, "subject_id": ends[0], "object_id": ends[1], "phrase": phrase}
        pos = {"object": "NOUN", "attribute": "ADJ", "relation": "ADP"}[kind]
        found.append({"concept_id": name, "kind": kind, "lemma": text, "pos": pos} | place | links)
    return found


def test_units_are_objects_and_relations_with_foils_of_their_own() -> None:
    words = {
        ("object", "NOUN", ""): (["man", "dog"], np.array([0.5, 0.5])),
        ("relation", "ADP", ""): (["behind", "on"], np.array([0.5, 0.5])),
    }
    for seed in range(5):
        made = list(units(concepts(), Vocabulary(words), np.random.default_rng(seed)))
        assert [(kind, text) for kind, text, _ in made] == [
            ("entity", "small red woman"), ("entity", "black cat"), ("entity", "man"),
            ("relation", "black cat behind man"),
        ]  # fmt: skip
        foils = [found for _, _, found in made]
        # Colour is exchanged for colour, and there is no man in a woman.
        assert foils[0] == {"swap_attribute": "small black woman", "replace_object": "small red dog"}
        assert foils[1] == {"swap_attribute": "red cat", "replace_object": "black dog"}
        assert foils[2] == {"replace_object": "dog"}
        assert foils[3].pop("swap_object") == "man behind black cat"
        assert foils[3].pop("replace_relation") == "black cat on man"
        ((kind, foil),) = foils[3].items()
        assert (
            foil
            in {
                "swap_attribute": {"red cat behind man"},
                "replace_object": {"black dog behind man", "black cat behind dog"},
            }[kind]
        )
    beside = [
        row | {"text": "beside", "lemma": "beside"} if row["kind"] == "relation" else row
        for row in concepts()
    ]
    *_, (_, _, last) = units(beside, Vocabulary({}), np.random.default_rng(0))
    assert "swap_object" not in last
    assert [text for _, text, _ in units([], Vocabulary({}), np.random.default_rng(0))] == []


def test_units_are_drawn_relations_first_and_come_again_where_there_are_few() -> None:
    relation, one = Unit("relation", "a on b", ("b on a",)), Unit("entity", "a", ())
    other = Unit("entity", "b", ("c",))
    seen = set()
    for seed in range(40):
        random = np.random.default_rng(seed)
        first, second = draw_units([one, other, relation], 2, random)
        assert first == ("a on b", "b on a")
        seen.add(second)
    assert seen == {
        ("a", None), ("b", "c"), ("a and b", None), ("b and a", None), ("a and b", "a and c"), ("b and a", "c and a"),
    }  # fmt: skip
    assert draw_units([one], 3, np.random.default_rng(0)) == [("a", None)] * 3
    assert draw_units([], 3, np.random.default_rng(0)) == []


def test_batches_hold_the_units_of_the_store(store: Store, tmp_path: Path) -> None:
    """On the demo corpus, by the commands."""
    import shutil

    copy = tmp_path / "store"
    shutil.copytree(store.url, copy)
    recipe = UnitPairs(tokenize=Tokenize(TOKENIZER), image_size=32, negatives=4, slots=2)
    data = DataConfig(store=str(copy), batch_size=24, workers=0)
    write_negatives(Store.open(str(copy)), 0, lambda line: None)
    with pytest.raises(UserError, match="macco-train units"):
        open_loader(data, recipe, log=lambda line: None)
    assert CliRunner().invoke(app, ["units", str(copy)]).exit_code == 0
    before = {file.name: file.read_bytes() for file in (copy / "units").iterdir()}
    write_units(Store.open(str(copy)), 0, lambda line: None)
    assert {file.name: file.read_bytes() for file in (copy / "units").iterdir()} == before
    for file in (copy / "units").iterdir():  # as where a shard was extracted anew
        file.unlink()
        with pytest.raises(UserError, match=f"no units of 1 shards, such as {file.stem}"):
            open_loader(data, recipe, log=lambda line: None)
        file.write_bytes(before[file.name])
    batch = next(iter(open_loader(data, recipe, log=lambda line: None)))
    assert batch.negatives.shape[:2] == (24, 1)
    assert batch.units.shape == batch.unit_foils.shape == (24, 2, batch.units.shape[2])
    assert batch.unit_valid.all()
    assert batch.foil_valid.float().mean() > 0.9
    assert (batch.entities >= 1).all()
    foils = batch.unit_foils[batch.foil_valid]
    assert (foils != batch.units[batch.foil_valid]).any(1).all()


def test_what_is_absent_is_no_candidate_and_equal_units_are_no_wrong_answers() -> None:
    clip, batch = tiny_clip(), unit_batch()

    def losses(batch: Any, **switches: Any) -> dict[str, float]:
        found = CsclipModel(clip, CsclipConfig(**switches))(batch)
        return {name: loss.item() for name, loss in found.items()}

    ours = losses(batch)
    assert ours["loss"] == pytest.approx(ours["full"] + 0.5 * ours["units"], rel=1e-9)
    assert set(losses(batch, units=0)) == {"full", "loss"}
    # What stands where there is nothing changes nothing.
    other = replace(batch, negatives=batch.negatives.clone(), unit_foils=batch.unit_foils.clone())
    other.negatives[1], other.unit_foils[2, 1], other.units[4] = 5, 7, 3
    assert losses(other) == pytest.approx(ours, rel=1e-9)
    assert losses(batch, duplicate_negatives=True)["units"] > ours["units"]
    released = {"reference": True, "duplicate_negatives": True}
    assert losses(batch, **released)["full"] != ours["full"]
    lonely = replace(batch, entities=torch.ones(6, dtype=torch.long))
    assert losses(lonely, **released)["units"] == 0
    assert losses(lonely)["units"] == ours["units"]
    none = replace(
        batch, foil_valid=torch.zeros(6, 2, dtype=torch.bool), unit_valid=torch.zeros(6, 2, dtype=torch.bool)
    )
    model = CsclipModel(clip, CsclipConfig())
    found = model(none)
    assert found["units"].item() == 0
    found["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
