"""The losses against a literal implementation, against the reference vectors, and each switch."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from macco.pipeline.errors import UserError
from macco.train.losses.contrastive import clip_contrast, info_nce
from macco.train.losses.negatives import intra_modal_negatives, next_margin, rank_negatives
from macco.train.objectives.macco.model import Macco
from tests.check_vectors import TOLERANCE, check
from tests.support import literal
from tests.support.tiny import HEADS, gradients, tiny_batch, tiny_macco


def run(model: Macco, batch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model.zero_grad()
    losses = model(batch)
    losses["loss"].backward()
    return {name: loss.detach() for name, loss in losses.items()}, gradients(model)


def assert_same(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-7
) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        gap = (found[name] - value).abs().max().item()
        assert gap <= tolerance * max(1.0, value.abs().max().item()), name


@pytest.mark.parametrize("padding", [True, False], ids=["reference", "fast"])
def test_losses_and_gradients_equal_the_literal_formulas(padding: bool) -> None:
    model, batch = tiny_macco(reference=padding), tiny_batch()
    found = run(model, batch)
    model.zero_grad()
    expected = literal.losses(dict(model.named_parameters()), batch, HEADS, padding)
    expected["loss"].backward()
    assert_same(found[0], expected)
    assert_same(found[1], gradients(model))


def test_nothing_masked_gives_zero_reconstruction_and_finite_gradients() -> None:
    batch = tiny_batch()
    batch = replace(batch, text_mask=batch.text_mask & False, patch_mask=batch.patch_mask & False)
    batch = replace(batch, text_slots=None, patch_slots=None)
    losses, grads = run(tiny_macco(), batch)
    assert losses["mlm"] == losses["mim"] == 0
    assert all(grad.isfinite().all() for grad in grads.values())


def test_captions_may_be_cut_to_the_longest() -> None:
    long, model = tiny_batch(), tiny_macco()
    longest = int(long.tokens.argmax(1).max()) + 1
    short = replace(long, tokens=long.tokens[:, :longest], text_mask=long.text_mask[:, :longest])
    assert longest < long.tokens.shape[1]
    before, after = run(model, long), run(model, short)
    assert_same(after[0], before[0])
    assert_same(after[1], before[1])


@pytest.mark.parametrize("loss", ["contrast", "mir", "mlm", "mim"])
def test_each_loss_can_be_off_and_the_others_keep_their_values(loss: str) -> None:
    full, _ = run(tiny_macco(), tiny_batch())
    rest, _ = run(tiny_macco(**{loss: 0.0}), tiny_batch())
    assert loss not in rest
    weights = {"contrast": 1.0, "mir": 0.1, "mlm": 20.0, "mim": 250.0}
    if loss != "mlm":  # without it the generator makes other predictors
        for name in rest.keys() - {"loss", "mim", "mlm"}:
            assert rest[name] == pytest.approx(full[name].item())
    assert rest["loss"] == pytest.approx(sum(weights[k] * rest[k].item() for k in rest if k != "loss"))


def test_gradient_flows_where_the_method_says() -> None:
    only = {"contrast": 0.0, "mir": 0.0}
    _, mlm = run(tiny_macco(**only, mim=0.0), tiny_batch())
    reached = {name for name, grad in mlm.items() if grad.abs().max() > 0}
    assert "text_mask_token" in reached
    assert not any(name.startswith("clip.visual") or name == "image_mask_token" for name in reached)
    _, mim = run(tiny_macco(**only, mlm=0.0), tiny_batch())
    reached = {name for name, grad in mim.items() if grad.abs().max() > 0}
    assert "clip.token_embedding.weight" in reached
    assert not any(name.startswith("clip.visual") or name.endswith("mask_token") for name in reached)


def test_switches_act() -> None:
    batch = tiny_batch()
    losses, grads = run(tiny_macco(), batch)
    _, open_grads = run(tiny_macco(stop_gradient=False), batch)
    assert not torch.allclose(grads["clip.visual.proj"], open_grads["clip.visual.proj"])
    plain, _ = run(tiny_macco(injection=False), batch)
    assert plain["mlm"] != losses["mlm"]
    assert plain["mim"] != losses["mim"]
    raw, _ = run(tiny_macco(normalise_pixels=False), batch)
    assert raw["mim"] != losses["mim"]
    assert raw["mlm"] == losses["mlm"]
    clip_only, _ = run(tiny_macco(mca=False), batch)
    assert clip_only["contrast"] != losses["contrast"]
    for side, inside in (("image", "clip.visual."), ("text", "clip.transformer.")):
        model = tiny_macco(freeze=side)
        frozen, grads = run(model, batch)
        assert_same(frozen, losses)
        assert all(grad.abs().max() == 0 for name, grad in grads.items() if name.startswith(inside))
        assert grads["clip.logit_scale"].abs() > 0
        assert grads[f"{side}_mask_token"].abs().max() > 0


def test_plain_clip_loss_is_the_usual_one() -> None:
    torch.manual_seed(0)
    text, image = torch.nn.functional.normalize(torch.randn(2, 4, 8), dim=-1)
    logits = 7 * text @ image.T
    labels = torch.arange(4)
    usual = (
        torch.nn.functional.cross_entropy(logits, labels)
        + torch.nn.functional.cross_entropy(logits.T, labels)
    ) / 2
    found = clip_contrast(text[None], image[None], text[None], image[None], torch.tensor(7.0))
    torch.testing.assert_close(found, usual)


def test_an_absent_negative_counts_for_nothing() -> None:
    torch.manual_seed(0)
    anchors, candidates = torch.randn(3, 8), torch.randn(5, 8)
    positives, scale = torch.arange(3), torch.tensor(2.0)
    present = torch.tensor([True, True, True, True, False])
    found = info_nce(anchors, candidates, positives, scale, present)
    torch.testing.assert_close(found, info_nce(anchors, candidates[:4], positives, scale))


def test_hard_negative_terms_equal_the_written_formulas() -> None:
    torch.manual_seed(0)
    text, image = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    negatives = torch.nn.functional.normalize(torch.randn(3, 2, 8), dim=-1)
    valid = torch.tensor([[True, False], [True, True], [False, False]])
    margin, scale = torch.tensor([0.5, 2.0]), torch.tensor(10.0)
    imc, cmr, gaps = [], [], {0: [], 1: []}
    for i in range(3):
        right = scale * text[i] @ image[i]
        others = [scale * text[i] @ negatives[j, k] for j in range(3) for k in range(2) if valid[j, k]]
        imc.append(torch.stack([right, *others]).logsumexp(0) - right)
        for k in range(2):
            wrong = scale * image[i] @ negatives[i, k]
            cmr.append((wrong - right + margin[k]).clamp(min=0) if valid[i, k] else torch.zeros(()))
            gaps[k] += [wrong] if valid[i, k] else []
    flat = negatives.flatten(0, 1), valid.flatten()
    torch.testing.assert_close(intra_modal_negatives(text, image, *flat, scale), torch.stack(imc).mean())
    own = (text, image, negatives, valid, scale, margin)
    torch.testing.assert_close(rank_negatives(*own), torch.stack(cmr).mean())
    rights = scale * (text * image).sum(1).mean()
    expected = torch.stack([rights - torch.stack(gaps[k]).mean() for k in range(2)])
    torch.testing.assert_close(next_margin(*own, limit=1e9), expected)
    assert next_margin(*own, limit=0.1).max() <= 0.1
    unseen = next_margin(text, image, negatives, valid & False, scale, margin, limit=5.0)
    torch.testing.assert_close(unseen, margin)


def test_hard_negatives_raise_the_contrast_and_margins_follow_the_model() -> None:
    batch = tiny_batch()
    negatives = replace(batch, negatives=batch.tokens.roll(1, 0)[:, None])
    plain, _ = run(tiny_macco(), batch)
    model = tiny_macco(negatives=1, imc=0.2, cmr=0.2).train()
    losses, _ = run(model, negatives)
    assert losses["contrast"] > plain["contrast"]
    assert model.margin.item() != 0
    weights = {"contrast": 1.0, "mir": 0.1, "mlm": 20.0, "mim": 250.0, "imc": 0.2, "cmr": 0.2}
    total = sum(weights[name] * losses[name].item() for name in weights)
    assert losses["loss"].item() == pytest.approx(total)
    with pytest.raises(UserError, match="no 1 hard negatives"):
        model(batch)


VECTORS = sorted(Path(os.environ.get("MACCO_VECTORS", "/nonexistent")).glob("macco*.safetensors"))


@pytest.mark.skipif(
    not VECTORS, reason="MACCO_VECTORS names no folder of reference vectors (macco*.safetensors)"
)
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_reference_vectors(path: Path) -> None:
    assert [row for row in check(path) if not row.error <= TOLERANCE] == []
