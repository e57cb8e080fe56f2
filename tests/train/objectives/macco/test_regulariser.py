"""Attention congruence on MACCO, against the attention that PyTorch's own modules give."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.data.slots import Slots
from macco.train.objectives.macco.attention import heard
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method
from macco.train.objectives.macco.step import backward
from tests.support.tiny import HEADS, gradients, tiny_batch, tiny_clip, tiny_macco


def shares(logits: Tensor) -> Tensor:
    return logits / logits.sum(-1, keepdim=True)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log() + q * (q / p).log()).sum()


def weights(attention: nn.MultiheadAttention, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """[B, h, N, M]"""
    found: Tensor = attention(x, y, y, attn_mask=mask, need_weights=True, average_attn_weights=False)[1]
    return found


def crossed(predictor: Any, x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    """The last block's attention from all of x [B, N, D] to y [B, M, D]."""
    slots = Slots.of(torch.ones(x.shape[:2], dtype=torch.bool))
    packed = x.flatten(0, 1)
    for block in predictor.cross_attn_blocks[:-1]:
        packed = block(packed, y, slots, valid)
    last = predictor.cross_attn_blocks[-1]
    plain = nn.MultiheadAttention(x.shape[-1], HEADS, batch_first=True).double()
    plain.load_state_dict(last.attn.state_dict())
    return weights(plain, last.ln_x(packed.view_as(x)), last.ln_y(y))


def literal(model: Macco, batch: Any) -> float:
    """CACR of both directions, sample by sample and row by row."""
    encodings = model.encode(batch, batch.images)
    with heard(model.text.blocks[-1]) as text, heard(model.image.blocks[-1]) as image:
        model.text.encode(model.text.embed(batch.tokens), model.text.ends(batch.tokens))
        model.image.encode(model.image.embed(batch.images), None)
    length = batch.tokens.shape[1]
    causal = model.text.module.attn_mask[:length, :length].double()
    last_text, last_image = model.text.blocks[-1], model.image.blocks[-1]
    own = weights(last_text.attn, last_text.ln_1(text[0]), last_text.ln_1(text[0]), causal)
    other = weights(last_image.attn, last_image.ln_1(image[0]), last_image.ln_1(image[0]))[:, :, 1:, 1:]
    tokens, patches = model.injected(encodings.text), model.injected(encodings.image)[:, 1:]
    across = crossed(model.prediction_text, tokens, patches, None)
    shown: Any = model.prediction_image
    queries = shown.decoder_embed(patches) + shown.pos_embedding
    back = crossed(shown, queries, tokens, model.text.valid(batch.tokens))
    total = 0.0
    for i in range(len(batch)):
        words = slice(1, int(batch.tokens[i].argmax()))
        s_ll, s_lv = shares(own[i][:, words, words]).mean(0), across[i][:, words].mean(0)
        s_vv, s_vl = shares(other[i]).mean(0), shares(back[i][:, :, words]).mean(0)
        carried = s_lv @ s_vv @ s_lv.T
        rows = [
            divergence(carried[m, : m + 1].softmax(0), s_ll[m, : m + 1].softmax(0)) for m in range(len(s_ll))
        ]
        total += sum(rows, torch.zeros(())).item() / len(rows) / 2
        carried = s_vl @ s_ll @ s_vl.T
        total += divergence(carried.softmax(1), s_vv.softmax(1)).item() / len(s_vv) / 2
    return total / len(batch)


@pytest.mark.parametrize("depth", [1, 3])
def test_the_loss_is_the_formula_on_attention_as_pytorch_gives_it(depth: int) -> None:
    model = tiny_macco(congruence=2.0, text_depth=depth, image_depth=depth)
    with torch.no_grad():  # peaked attention
        for name, parameter in model.named_parameters():
            if "in_proj_weight" in name:
                parameter.mul_(8)
    batch = tiny_batch()
    losses = model(batch)
    expected = literal(model, batch)
    assert expected > 1e-5
    assert losses["congruence"].item() == pytest.approx(expected, rel=1e-6)
    plain = tiny_macco(text_depth=depth, image_depth=depth)
    plain.load_state_dict(model.state_dict())
    without = plain(batch)
    assert "congruence" not in without
    assert losses["loss"].item() == pytest.approx(without["loss"].item() + 2 * expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["cacr", "iais-singular", "iais-distributed", "row-normalised"])
def test_micro_batches_change_nothing_and_both_towers_learn_from_it(kind: str) -> None:
    switches: dict[str, Any] = {"congruence": 5.0, "congruence_kind": kind}
    found = []
    for size in (5, 2):
        model = tiny_macco(**switches)
        losses = backward(model, list(tiny_batch().split(size)))
        found.append((losses, gradients(model)))
    torch.testing.assert_close(found[0], found[1])
    alone = tiny_macco(**switches)
    torch.autograd.backward(alone(tiny_batch())["congruence"])
    learned = {name for name, value in gradients(alone).items() if value.any()}
    assert "clip.visual.transformer.resblocks.1.attn.in_proj_weight" in learned
    assert "clip.transformer.resblocks.1.attn.in_proj_weight" in learned
    assert ("prediction_text.cross_attn_blocks.0.attn.in_proj_weight" in learned) == (
        kind == "iais-distributed"
    )


def test_a_frozen_tower_and_a_shorter_batch_do_no_harm() -> None:
    model = tiny_macco(congruence=1.0, freeze="image")
    whole, cut = model(tiny_batch())["congruence"], model(tiny_batch(length=12))["congruence"]
    torch.testing.assert_close(whole, cut)


def test_it_needs_both_predictors() -> None:
    with pytest.raises(UserError, match="both predictors"):
        Macco(tiny_clip(), Method(heads=HEADS, congruence=1.0, mlm=0))
