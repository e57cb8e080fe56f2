"""The paper's ablations of boxes, by their presets: boxes of another detector, and a tenth of them random."""

from pathlib import Path

import open_clip
import pytest
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.clip.write import export_open_clip
from macco.train.layers import parse, preset, resolve
from macco.train.loop.run import train
from macco.train.runs.metrics import read
from tests.support.drawn import drawn_store
from tests.train.loop.test_train_run import CLIP, never, quiet
from tests.train.objectives.test_runs import SETTINGS


def test_each_is_a_run_of_its_own_numbers(tmp_path: Path) -> None:
    url = drawn_store(tmp_path / "drawn", shards=2)
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), tmp_path / "start", CLIP)
    given = [*SETTINGS, f"data.store={url}", f"model.name={tmp_path / 'start'}"]
    given += ["method.text_depth=1", "method.image_depth=1", "optimizer.predictors_first=0", "micro_batch=0"]

    def losses(name: str, *more: str) -> tuple[float, ...]:
        layers = [preset(name)] if name else []
        assert train(resolve(*layers, parse([*given, *more])), tmp_path / (name or "plain"), never, quiet)
        return tuple(row["mim"] for row in read(tmp_path / (name or "plain")))

    plain = losses("")
    with pytest.raises(UserError, match="no boxes of 'owlv2'"):
        losses("ablation-owlv2")
    store = Store.open(url)
    store.begin_grounding("owlv2", {"detector": "transformers:google/owlv2-base-patch16-ensemble"})
    for shard in store.committed():
        boxes = store.table("boxes", shard)
        store.put_boxes("owlv2", shard, boxes.slice(0, boxes.num_rows // 2), {})
    other, random = losses("ablation-owlv2"), losses("ablation-random-boxes", "data.detector=imported")
    assert len({plain, other, random}) == 3
