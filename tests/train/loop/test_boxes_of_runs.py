"""Whose boxes a run reads where a store has got those of a further detector."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.clip.write import export_open_clip
from macco.train.config import TrainConfig
from macco.train.data.negatives import write_negatives
from macco.train.layers import parse, resolve
from macco.train.loop.run import train
from macco.train.objectives.objective import load_objective
from macco.train.results.card import export_with_card
from macco.train.runs.metrics import read
from macco.train.runs.weights import saved_config
from tests.support.drawn import drawn_store
from tests.train.loop.test_train_run import CLIP, after, never, quiet
from tests.train.objectives.test_runs import SETTINGS

MACCO = ("method.text_depth=1", "method.image_depth=1", "optimizer.predictors_first=0")


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    url = drawn_store(tmp_path / "drawn", shards=2)
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), tmp_path / "start", CLIP)
    return [*SETTINGS, f"data.store={url}", f"model.name={tmp_path / 'start'}"]


def configured(given: list[str], *more: str) -> TrainConfig:
    return resolve(parse([*given, *more]))


def add_set(given: list[str]) -> None:
    """Half of the store's boxes as those of another detector."""
    store = Store.open(configured(given).data.store)
    store.begin_grounding("other", {"detector": "other"})
    for shard in store.committed():
        boxes = store.table("boxes", shard)
        store.put_boxes("other", shard, boxes.slice(0, boxes.num_rows // 2), {})


def losses(run: Path) -> list[Any]:
    return [row["loss"] for row in read(run)]


def test_a_run_goes_on_with_the_boxes_it_began_with(given: list[str], tmp_path: Path) -> None:
    config = configured(given, *MACCO)
    for run in ("cut", "named"):
        assert not train(config, tmp_path / run, after(2), quiet)
    assert train(config, tmp_path / "whole", never, quiet)
    add_set(given)
    assert train(config, tmp_path / "cut", never, quiet)
    assert train(configured(given, *MACCO, "data.detector=imported"), tmp_path / "named", never, quiet)
    assert train(config, tmp_path / "named", never, quiet)  # whose configuration has the name by now
    assert losses(tmp_path / "cut") == losses(tmp_path / "named") == losses(tmp_path / "whole")
    assert train(config, tmp_path / "whole", never, quiet)  # there is nothing left to do
    with pytest.raises(UserError, match=r"was begun with data\.detector = '', not 'other'"):
        train(configured(given, *MACCO, "data.detector=other"), tmp_path / "whole", never, quiet)
    with pytest.raises(UserError, match="choose one with"):
        train(config, tmp_path / "new", never, quiet)
    saved = saved_config(tmp_path / "cut")
    assert len(load_objective(saved).examples(tmp_path / "cut", 1)) == 1
    export_with_card(tmp_path / "cut", tmp_path / "model", "open_clip", "", None, [], quiet)
    assert "cannot be opened" not in (tmp_path / "model" / "README.md").read_text()


def test_who_reads_no_boxes_is_not_asked(given: list[str], tmp_path: Path) -> None:
    write_negatives(Store.open(configured(given).data.store), 0, quiet)
    add_set(given)
    assert train(configured(given, "objective=fsc"), tmp_path / "run", never, quiet)
    for asks in (["c2lip.boxes=true", "objective=c2lip"], ["objective=fsc", "data.where=score > 0.3"]):
        with pytest.raises(UserError, match="choose one with"):
            train(configured(given, *asks), tmp_path / "asks", never, quiet)
    assert train(configured(given, "objective=c2lip"), tmp_path / "c2lip", never, quiet)


def test_what_it_means_to_have_no_boxes_is_said_of_the_objective(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(configured(given).data.store)
    about = store / "store.json"
    about.write_text(about.read_text().replace('"made": "for tests"', '"detector": "none"'))
    config = configured(given, "objective=c2lip", "c2lip.boxes=true", "masks.box_score=0.95", "steps=1")
    assert train(config, tmp_path / "run", never, quiet)
    assert "without a detector: a phrase attends to all patches of its image" in capsys.readouterr().err
