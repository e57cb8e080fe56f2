"""Parameter groups: who learns at which rate."""

import pytest
import torch

from macco.train.config import OBJECTIVES
from macco.train.layers import preset, preset_names, resolve
from macco.train.loop.optimizer import SCALE, factor, parameter_groups
from tests.support.tiny import tiny_macco

RATES = {"lr": 1.0, "predictor_lr": 2.0, "decay": 0.3, "predictor_decay": 0.4}


@pytest.mark.parametrize(
    "own", [{}, {"scale_lr": 5.0}, {"scale_decay": 0.6}, {"scale_lr": 5.0, "scale_decay": 0.6}]
)
def test_every_parameter_learns_once_and_the_scale_as_it_is_told(own: dict[str, float]) -> None:
    model = tiny_macco()
    groups = parameter_groups(model, **RATES, **own)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    of = {id(p): group for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = of[id(parameter)]
        wanted: tuple[float, float] = (2.0, 0.4)
        if name == SCALE:
            wanted = own.get("scale_lr", 1.0), own.get("scale_decay", 0.0)
        elif name.startswith("clip."):
            wanted = 1.0, 0.3 if parameter.ndim >= 2 else 0.0
        assert (group["lr"], group["weight_decay"]) == wanted, name
    assert groups[-1]["name"] == "new"
    # Without a rate of its own the scale is where checkpoints of the first version have it.
    assert len(groups) == (4 if own else 3)


def test_a_frozen_scale_is_in_no_group() -> None:
    model = tiny_macco()
    model.clip.logit_scale.requires_grad_(False)
    named = {group["name"] for group in parameter_groups(model, **RATES, scale_lr=5.0)}
    assert named == {"clip", "clip_gains", "new"}


def test_the_papers_presets_have_one_caption_an_image_and_released_ones_the_slips() -> None:
    assert {"released-vitb32", "released-vitb16", "released-vitl14"} <= set(preset_names())
    for name in preset_names():
        config = resolve(preset(name))
        assert config.objective in OBJECTIVES
        if name.startswith(("paper-", "siglip")):
            assert config.data.captions == "one"
            assert not config.method.duplicate_negatives
            assert config.optimizer.scale_lr is None
        if name.startswith("released-"):
            assert config.data.captions == "all"
            assert config.method.duplicate_negatives
            assert config.method.reference
            assert config.method.heads == 8
            assert config.optimizer.scale_lr == config.optimizer.predictor_lr == 1e-3
            assert config.optimizer.scale_decay == config.optimizer.predictor_decay == 0.01
    assert resolve(preset("paper-vitl14")).method.heads == 8
    assert torch.tensor(resolve(preset("released-vitl14")).method.text_depth) == 4


def test_a_rise_from_a_share_and_a_fall_to_one() -> None:
    """CS-CLIP's: from 10 % over 3 of 5 epochs, then to 1 %."""
    rates = [factor(step, 60, 100, 0.1, 0.01) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.55)
    assert rates[60] == 1.0
    assert rates[80] == pytest.approx(0.01 + 0.99 * 0.5)
    assert rates[100] == pytest.approx(0.01)
    assert rates[:61] == sorted(rates[:61])
    assert rates[60:] == sorted(rates[60:], reverse=True)
    o = resolve(preset("csclip-vitb32")).optimizer
    assert (o.warmup_share, o.warmup_from, o.floor) == (0.6, 0.1, 0.01)
