"""Blocks that compute as open_clip's do, in fewer passes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from macco.train.clip.blocks import Block, quicken
from tests.support.tiny import tiny_batch, tiny_clip, tiny_macco


def made(quick: bool) -> ResidualAttentionBlock:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(8, 2, act_layer=QuickGELU if quick else nn.GELU).double()
    for parameter in block.parameters():  # biases and gains are 0 and 1 at first
        nn.init.normal_(parameter)
    return block


def passed(block: nn.Module, x: Tensor, mask: Tensor | None, rows: int) -> list[Tensor]:
    """The output, and the gradients of its first rows."""
    x = x.clone().requires_grad_()
    out = block(x, attn_mask=mask)
    weights = torch.linspace(-1, 2, out[:, :rows].numel(), dtype=out.dtype)
    torch.autograd.backward((out[:, :rows].flatten() * weights).sum())
    found = [out.detach(), x.grad, *(parameter.grad for parameter in block.parameters())]
    return [each for each in found if each is not None]


@settings(deadline=None, max_examples=20)
@given(
    quick=st.booleans(),
    causal=st.booleans(),
    learning=st.integers(0, 3),
    size=st.integers(1, 3),
    length=st.integers(3, 6),
)
def test_outputs_and_gradients_are_those_of_open_clip(
    quick: bool, causal: bool, learning: int, size: int, length: int
) -> None:
    x = torch.randn(size, length, 8, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    mask = torch.full((length, length), -torch.inf).triu(1) if causal else None
    own: Any = nn.ModuleList([made(quick)])
    quicken(own)
    assert isinstance(own[0], Block)
    own[0].learning = learning
    rows = learning or length
    expected = passed(made(quick), x, mask, rows)
    found = passed(own[0], x, mask, rows)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("settings", [{}, {"stop_gradient": False}, {"congruence": 1.0}])
def test_the_last_image_block_goes_back_by_the_class_token_alone_where_no_loss_reaches_its_patches(
    settings: dict[str, Any],
) -> None:
    model = tiny_macco(**settings)
    last: Any = model.image.blocks[-1]
    assert last.learning == (0 if settings else 1)
    plain, batch = tiny_macco(**settings), tiny_batch()
    other: Any = plain.image.blocks[-1]
    other.learning = 0
    for one in (model, plain):
        torch.autograd.backward(one(batch)["loss"])
    for (name, one), two in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-11, msg=name)


def test_other_blocks_stay_as_they_are() -> None:
    clip = tiny_clip()
    blocks = clip.transformer.resblocks
    blocks[0].attn.batch_first = False
    quicken(blocks)
    assert type(blocks[0]) is ResidualAttentionBlock
    assert type(blocks[1]) is Block
