"""What any objective may have beside its own settings: a sigmoid for its contrast, blocks that do not learn."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import SigLipLoss
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.train.cli import app
from macco.train.layers import parse, preset, require_read, resolve
from macco.train.loop.optimizer import parameter_groups
from macco.train.loop.state import build_model
from macco.train.losses.contrastive import clip_contrast
from macco.train.objectives.objective import load_objective
from tests.support.objective_batches import hard_batch
from tests.support.tiny import tiny_clip
from tests.train.clip.test_towers import siglip

FSC = ["objective=fsc", "fsc.negatives=2"]


def built(clip: Any, *assignments: str) -> Any:
    return build_model(load_objective(resolve(parse([*assignments]))), clip, torch.device("cpu"))


def test_the_sigmoid_contrast_is_open_clips() -> None:
    random = torch.Generator().manual_seed(0)
    text, image = (F.normalize(torch.randn(5, 4, generator=random), dim=-1) for _ in range(2))
    scale, bias = torch.tensor(20.0), torch.tensor(-7.0)
    found = clip_contrast(text[None], image[None], text[None], image[None], scale, bias=bias)
    torch.testing.assert_close(found, SigLipLoss()(image, text, scale, bias))


def test_pairs_that_are_no_wrong_answers_and_absent_negatives_count_for_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    text, image, made = (F.normalize(torch.randn(3, 4, generator=random), dim=-1) for _ in range(3))
    scale, bias = torch.tensor(20.0), torch.tensor(-7.0)
    same = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    valid = torch.tensor([True, False, True])
    views = [x[None] for x in (text, image, text, image)]
    found = clip_contrast(*views, scale, negatives=made, negative_valid=valid, same=same, bias=bias)
    logits = scale * torch.cat([image @ text.T, image @ made.T], 1) + bias
    right = torch.cat([2 * torch.eye(3) - 1, -torch.ones(3, 3)], 1)
    counts = torch.cat([~same, valid.expand(3, -1)], 1)
    to_text = -(F.logsigmoid(right * logits) * counts).sum() / 3
    to_image = -(F.logsigmoid(right[:, :3] * logits[:, :3]) * ~same).sum() / 3
    torch.testing.assert_close(found, (to_text + to_image) / 2)


def test_a_model_with_a_bias_is_contrasted_by_a_sigmoid_by_default() -> None:
    clip = siglip()
    assert built(clip, *FSC).bias().item() == -10
    assert built(clip, *FSC, "contrast=softmax").bias() is None
    assert built(tiny_clip(), *FSC).bias() is None
    model = built(tiny_clip(), *FSC, "contrast=sigmoid")
    assert model.new_state() == {"logit_bias"}
    assert built(tiny_clip(), "objective=c2lip", "c2lip.bias=-5").bias().item() == -5
    with pytest.raises(UserError, match="contrasts no features"):
        resolve(parse(["objective=cacr", "contrast=sigmoid"]))


def learning(model: Any) -> set[str]:
    return {name.removeprefix("clip.") for name, p in model.named_parameters() if p.requires_grad}


def test_only_the_last_blocks_learn_and_what_follows_them() -> None:
    whole = learning(built(tiny_clip(), *FSC))
    last = learning(built(tiny_clip(), *FSC, "optimizer.image_blocks=1"))
    image = {name for name in last if name.startswith("visual.")}
    assert {name.split(".")[1] for name in image} == {"transformer", "ln_post", "proj"}
    assert all(".resblocks.1." in name for name in image if "transformer" in name)
    assert last - image == {name for name in whole if not name.startswith("visual.")}
    text = learning(built(tiny_clip(), *FSC, "optimizer.text_blocks=1", "optimizer.image_blocks=0"))
    assert not any(name.startswith("visual.") for name in text)
    assert {name.split(".")[0] for name in text} == {
        "transformer",
        "ln_final",
        "text_projection",
        "logit_scale",
    }
    with pytest.raises(UserError, match="this tower has 2"):
        built(tiny_clip(), *FSC, "optimizer.text_blocks=3")
    trunk = learning(built(siglip(), *FSC, "optimizer.image_blocks=2"))
    image = {name for name in trunk if name.startswith("visual.")}
    assert {name.split(".")[2] for name in image} == {"blocks", "norm", "attn_pool"}
    assert {name.split(".")[3] for name in image if ".blocks." in name} == {"10", "11"}


def test_what_does_not_learn_is_in_no_group_and_gets_no_gradient() -> None:
    model = built(tiny_clip(), *FSC, "optimizer.image_blocks=0", "optimizer.text_blocks=1")
    model(hard_batch())["loss"].backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == (name.removeprefix("clip.") in learning(model)), name
    groups = parameter_groups(model, lr=1, predictor_lr=1, decay=0, predictor_decay=0)
    assert sum(len(group["params"]) for group in groups) == len(learning(model))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["objective=fsc", "method.anchors=full"],
            "method.anchors is a setting of another objective: fsc has its own",
        ),
        (["c2lip.npc=1"], "c2lip.npc is a setting of another objective: macco has its own, method.*"),
        (
            ["objective=csclip", "--preset", "demo", "joint.offline=1"],
            "joint.offline is a setting of another",
        ),
    ],
)
def test_a_setting_of_another_objective_is_refused_where_it_is_given(
    given: list[str], told: str, tmp_path: Path
) -> None:
    command = ["run", *given, "--store", str(tmp_path), "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match=re.escape(told)):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_presets_of_another_objective_go_together_with_an_objective() -> None:
    given = parse(["objective=fsc", "fsc.negatives=2"])
    require_read(resolve(preset("tiny"), given), given)
