"""The congruence losses against the formulas written out: one sample, one head, one row at a time."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from macco.pipeline.errors import UserError
from macco.train.losses.congruence import KINDS, Attention, congruence
from tests import check_vectors

HEADS = 3


def softmax(row: Tensor) -> Tensor:
    return row.exp() / row.exp().sum()


def block(logits: Tensor, queries: range, keys: range) -> Tensor:
    """One sample's attention within a block, its heads averaged."""
    heads = [torch.stack([softmax(head[q, keys.start : keys.stop]) for q in queries]) for head in logits]
    return torch.stack(heads).sum(0) / len(heads)


def kl(p: Tensor, q: Tensor, epsilon: float) -> Tensor:
    return (p * (p.log() - (q + epsilon).log())).sum()


def literal(logits: Tensor, length: int, regions: int, kind: str, direction: str) -> Tensor:
    """A loss of one sample without padding, [heads, L + V, L + V]."""
    text, image = range(length), range(length, length + regions)
    own, other = (text, image) if direction == "L" else (image, text)
    mine, theirs = block(logits, own, own), block(logits, other, other)
    across, back = block(logits, own, other), block(logits, other, own)
    soft, epsilon = True, 0.0
    if kind in ("cacr", "row-normalised"):
        across = across.detach()
        carried = across @ theirs @ across.T
        if kind == "cacr":
            mine = torch.stack([softmax(row) for row in mine])
        else:
            carried, soft, epsilon = carried / carried.sum(1, keepdim=True), False, 1e-6
    elif kind == "iais-singular":
        best = [int(row.argmax()) for row in across]
        carried = torch.stack([torch.stack([theirs[i, j] for j in best]) for i in best])
    else:
        carried, soft, epsilon = across @ back, False, 1e-6
    if soft:
        carried = torch.stack([softmax(row) for row in carried])
    rows = [kl(p, q, epsilon) + kl(q, p, epsilon) for p, q in zip(carried, mine, strict=True)]
    return sum(rows, torch.zeros(())) / len(own)


def padded(samples: list[Tensor], lengths: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples scattered over a batch: one special place before each modality, padding after; both hold noise."""
    longest, widest = (2 + max(n) for n in zip(*lengths, strict=True))
    text = torch.stack([(torch.arange(longest) > 0) & (torch.arange(longest) <= n) for n, _ in lengths])
    image = torch.stack([(torch.arange(widest) > 0) & (torch.arange(widest) <= n) for _, n in lengths])
    logits = 30 * torch.randn(len(samples), HEADS, longest + widest, longest + widest, dtype=torch.float64)
    for row, sample, which in zip(logits, samples, torch.cat([text, image], 1), strict=True):
        row[:, which[:, None] & which] = sample.flatten(1)
    return logits.requires_grad_(), text, image


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3), st.integers(0, 2**31)
)
def test_values_and_gradients_are_the_formulas(kind: str, lengths: list[tuple[int, int]], seed: int) -> None:
    torch.manual_seed(seed)
    samples = [2 * torch.randn(HEADS, n + m, n + m, dtype=torch.float64) for n, m in lengths]
    logits, text, image = padded(samples, lengths)
    for direction in ("L", "V"):
        attention = Attention.joint(logits, text, image)
        found = congruence(attention if direction == "L" else attention.mirrored(), kind)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        for i, (sample, (n, m)) in enumerate(zip(samples, lengths, strict=True)):
            own = sample.clone().requires_grad_()
            expected = literal(own, n, m, kind, direction)
            torch.testing.assert_close(found[i].detach(), expected.detach().double(), rtol=1e-9, atol=1e-12)
            (slope,) = torch.autograd.grad(expected, own)
            which = torch.cat([text, image], 1)[i]
            pairs = which[:, None] & which
            torch.testing.assert_close(gradient[i][:, pairs], slope.flatten(1), rtol=1e-8, atol=1e-12)
            assert not gradient[i][:, ~pairs].any()


def test_stop_gradients() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, HEADS, 9, 9, requires_grad=True)
    whole = torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)
    reached = {}
    for kind in KINDS:
        (g,) = torch.autograd.grad(congruence(Attention.joint(logits, *whole), kind).sum(), logits)
        blocks = {"LL": g[..., :4, :4], "LV": g[..., :4, 4:], "VL": g[..., 4:, :4], "VV": g[..., 4:, 4:]}
        reached[kind] = {name for name, part in blocks.items() if part.any()}
    assert reached == {
        "cacr": {"LL", "VV"},
        "row-normalised": {"LL", "VV"},
        "iais-singular": {"LL", "VV"},
        "iais-distributed": {"LL", "LV", "VL"},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_and_float32_keep_the_digits(kind: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, HEADS, 60, 60, dtype=torch.float64)
    masks = torch.ones(4, 24, dtype=torch.bool), torch.ones(4, 36, dtype=torch.bool)
    exact = congruence(Attention.joint(logits, *masks), kind)
    with torch.autocast("cpu", torch.bfloat16):
        found = congruence(Attention.joint(logits.float(), *masks), kind)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_sharp_attention_and_empty_modalities_stay_finite(kind: str) -> None:
    torch.manual_seed(0)
    logits = (400 * torch.randn(3, HEADS, 8, 8)).requires_grad_()
    text, image = torch.ones(3, 3, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    text[1], image[2] = False, False
    for attention in (Attention.joint(logits, text, image), Attention.joint(logits, text, image).mirrored()):
        found = congruence(attention, kind)
        assert not found[1:].any()
        assert 0 < found[0] < math.inf
        assert torch.autograd.grad(found.sum(), logits)[0].isfinite().all()


def test_an_unknown_kind_is_named() -> None:
    attention = Attention.joint(torch.zeros(1, 1, 2, 2), *torch.ones(2, 1, 1, dtype=torch.bool))
    with pytest.raises(UserError, match="iais-singular"):
        congruence(attention, "iais")


def test_the_check_of_vectors_accepts_what_is_right_and_only_that(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, (n, m) in {"0": (1, 4), "1": (3, 2)}.items():
        logits = torch.randn(HEADS, n + m, n + m)
        tensors |= {f"{name}.logits": logits, f"{name}.lengths": torch.tensor([n, m])}
        for loss in ("cacr", "iais_singular", "iais_distributed"):
            for direction in "LV":
                own = logits.double().requires_grad_()
                value = literal(own, n, m, loss.replace("_", "-"), direction)
                (slope,) = torch.autograd.grad(value, own)
                tensors[f"{name}.{loss}_{direction}"] = value.detach()[None].double()
                tensors[f"{name}.{loss}_{direction}.grad"] = slope.float()
    path = tmp_path / "cacr.safetensors"
    save_file(tensors, path, {"heads": str(HEADS)})
    assert check_vectors.main([str(path)]) == 0
    tensors["1.cacr_V"] = tensors["1.cacr_V"] * (1 + 2e-6)
    save_file(tensors, path, {"heads": str(HEADS)})
    assert check_vectors.main([str(path)]) == 1
