"""A run of each objective: it goes on bit-equal, and ends in a plain CLIP."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from macco.pipeline.store import Store
from macco.train.clip.load import load_clip
from macco.train.clip.write import export_open_clip
from macco.train.data.elsewhere import import_texts
from macco.train.data.negatives import write_negatives
from macco.train.data.units import write_units
from macco.train.layers import parse, resolve
from macco.train.loop.run import train
from macco.train.results.product import export_run
from macco.train.runs.metrics import read as read_metrics
from tests.support.drawn import drawn_store
from tests.support.tiny_t5 import write_t5
from tests.train.loop.test_train_run import CLIP, after, equal, never, quiet, state

SETTINGS = [
    "data.batch_size=10", "data.workers=0", "steps=4", "save_every=0", "log_every=1", "device=cpu",
    "model.pretrained=", "optimizer.warmup=0", "optimizer.lr=1e-4",
]  # fmt: skip
RUNS = {
    "fsc": ([], {"contrast", "global", "local"}),
    "c2lip": (["c2lip.boxes=true", "micro_batch=4"], {"contrast", "npc", "xac"}),
    "csclip": ([], {"full", "units"}),
    "degla": (["distill.weight=0.005"], {"contrast", "image_grounded", "text_grounded", "distillation"}),
    "macco, taught": (["distill.weight=0.005", "micro_batch=5"], {"contrast", "mlm", "distillation"}),
    "fsc, kept at its start": (
        ["distill.weight=0.005", "distill.teacher=frozen"],
        {"global", "distillation"},
    ),
    "read": (["read.decoder={t5}", "micro_batch=4"], {"contrast", "reconstruction", "alignment"}),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = drawn_store(tmp_path_factory.mktemp("drawn"))
    write_negatives(Store.open(url), 0, quiet)
    write_units(Store.open(url), 0, quiet)
    ids = [row["sample_id"] for row in Store.open(url).table("samples", "00000").to_pylist()]
    file = tmp_path_factory.mktemp("texts") / "paraphrases.jsonl"
    file.write_text("\n".join(json.dumps({"sample_id": one, "paraphrases": ["A dog rests."]}) for one in ids))
    import_texts(Store.open(url), str(file), quiet)
    return url


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), folder, CLIP)
    return str(folder)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_bit_equal_and_exports_a_plain_clip(
    name: str, store: str, clip: str, tmp_path: Path
) -> None:
    own, losses = RUNS[name]
    t5 = write_t5(tmp_path / "t5")
    own = [each.replace("{t5}", t5) for each in own]
    given = [f"objective={name.split(',')[0]}", f"data.store={store}", f"model.name={clip}", *own]
    config = resolve(parse([*SETTINGS, *given]))
    assert train(config, tmp_path / "whole", never, quiet)
    assert not train(config, tmp_path / "cut", after(2), quiet)
    assert train(config, tmp_path / "cut", never, quiet)
    assert equal(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert {*losses, "loss", "logit_scale"} <= set(read_metrics(tmp_path / "whole")[0])
    export_run(tmp_path / "whole", tmp_path / "model")
    trained = load_clip(str(tmp_path / "model")).model.state_dict()
    before = load_clip(clip).model.state_dict()
    assert trained.keys() == before.keys()
    assert any(not torch.equal(value, before[key]) for key, value in trained.items())
