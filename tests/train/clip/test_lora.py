"""Adapters: where they are, that they begin as nothing, and that they are merged into what comes out."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.clip.load import load_clip
from macco.train.clip.lora import adapt
from macco.train.clip.write import export_open_clip
from macco.train.config import LoraSettings
from macco.train.data.negatives import write_negatives
from macco.train.layers import parse, preset, resolve
from macco.train.loop.run import train
from macco.train.results.product import export_run
from macco.train.results.report import write_report
from macco.train.runs.weights import trained_clip
from tests.support.drawn import drawn_store
from tests.support.tiny import tiny_batch, tiny_clip
from tests.train.clip.test_towers import siglip
from tests.train.loop.test_train_run import CLIP, after, equal, never, quiet, state


def test_adapters_begin_as_nothing_and_are_merged() -> None:
    clip, plain, batch = tiny_clip(), tiny_clip(), tiny_batch()
    tuner = adapt(clip, LoraSettings(rank=2, alpha=3))
    learning = {name for name, p in clip.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name == "logit_scale" for name in learning)
    # Of each of 4 blocks: what goes into attention, what comes out of it, and two maps after it; two matrices each.
    assert len(learning) == 4 * 4 * 2 + 1

    def features(model: Any) -> torch.Tensor:
        return torch.cat([model.encode_image(batch.images), model.encode_text(batch.tokens)])

    torch.testing.assert_close(features(clip), features(plain))
    with torch.no_grad():
        for name, p in clip.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1)
    moved = features(clip)
    assert (moved - features(plain)).abs().max() > 1e-3
    moved.sum().backward()
    assert all(p.grad is not None and p.grad.any() for n, p in clip.named_parameters() if "lora_" in n)
    merged = tuner.merge_and_unload()
    assert merged.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(features(merged), moved)


@pytest.mark.slow
def test_siglip_has_them_too() -> None:
    clip = siglip()
    adapt(clip, LoraSettings(rank=1))
    learning = {name for name, p in clip.named_parameters() if p.requires_grad}
    assert {"logit_scale", "logit_bias"} <= learning
    assert len([name for name in learning if name.startswith("visual.trunk.blocks.")]) == 12 * 4 * 2


@pytest.mark.parametrize(
    "objective", [["fsc.negatives=2", "distill.weight=0.01", "distill.teacher=frozen"], ["objective=macco"]]
)
def test_a_run_goes_on_bit_equal_and_exports_a_plain_clip(objective: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = tmp_path / "clip"
    export_open_clip(open_clip.model.CLIP(**CLIP), start, CLIP)
    url = drawn_store(tmp_path)
    write_negatives(Store.open(url), 0, quiet)
    settings = [
        "data.batch_size=10", "data.workers=0", "steps=4", "save_every=0", "log_every=1", "device=cpu",
        f"data.store={url}", f"model.name={start}", "model.pretrained=", "optimizer.warmup=0", "optimizer.lr=1e-2",
        "micro_batch=4",
    ]  # fmt: skip
    config = resolve(preset("fsc-lora-vitb32"), parse([*settings, *objective]))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(config, whole, never, quiet)
    assert not train(config, cut, after(2), quiet)
    assert train(config, cut, never, quiet)
    assert equal(state(cut), state(whole))
    write_report(whole)
    export_run(whole, tmp_path / "model")
    before, trained = (
        load_clip(str(start)).model.state_dict(),
        load_clip(str(tmp_path / "model")).model.state_dict(),
    )
    assert trained.keys() == before.keys()
    changed = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert all(".resblocks." in name and name.endswith("weight") for name in changed - {"logit_scale"})
    assert len(changed - {"logit_scale"}) == 4 * 4
    half = trained_clip(whole, "latest", 0.5).model.state_dict()
    for name, value in half.items():
        torch.testing.assert_close(value, torch.lerp(before[name], trained[name], 0.5))


@pytest.mark.parametrize(
    "other", ["ema=0.9", "compile=true", "optimizer.text_blocks=1", "distill.weight=1", "objective=cacr"]
)
def test_what_does_not_go_together_is_refused(other: str) -> None:
    with pytest.raises(UserError, match=r"lora\.rank does not go together with"):
        resolve(parse(["lora.rank=4", other]))
    with pytest.raises(UserError, match=r"method\.freeze"):
        resolve(parse(["lora.rank=4", "method.freeze=text"]))
