"""Attention congruence on MACCO: self-attention of the towers' last blocks, cross-attention of the predictors'.

A dual encoder has no joint layer. Its predictors attend from one modality to the other, here from every token and patch
of the plain pair; only these layers' logits are computed, beside the fused attention of the forward pass.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.data.slots import Slots
from macco.train.objectives.macco.predictors import CrossBlock, ImagePredictor, TextPredictor

DISTRIBUTED = "iais-distributed"  # the kind whose gradient reaches the cross-attention


@contextmanager
def heard(block: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs [B, N, W] that a block gets meanwhile."""
    inputs: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    try:
        yield inputs
    finally:
        handle.remove()


def self_logits(block: Any, x: Tensor) -> Tensor:
    """Q K^T / sqrt(d) [B, h, N, N] of a tower's block for its input x [B, N, W], without mask, in float32.

    Raises:
        UserError: the block's attention is neither PyTorch's nor timm's.
    """
    with torch.autocast(x.device.type, enabled=False):
        if isinstance(getattr(block, "attn", None), nn.MultiheadAttention):
            attention, x = block.attn, block.ln_1(x.to(block.ln_1.weight.dtype))
            qk = F.linear(
                x, attention.in_proj_weight[: 2 * x.shape[-1]], attention.in_proj_bias[: 2 * x.shape[-1]]
            )
            q, k = (_split(part, attention.num_heads) for part in qk.chunk(2, -1))
        elif hasattr(getattr(block, "attn", None), "qkv"):
            attention, x = block.attn, block.norm1(x.to(block.norm1.weight.dtype))
            q, k, _ = (_split(part, attention.num_heads) for part in attention.qkv(x).chunk(3, -1))
            q, k = attention.q_norm(q), attention.k_norm(k)
        else:
            raise UserError("method.congruence knows the attention of ViT CLIP and SigLIP towers only")
        return q @ k.mT / math.sqrt(q.shape[-1])


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def text_logits(predictor: TextPredictor, text: Tensor, image: Tensor) -> Tensor:
    """The last block's logits [B, h, L, P] from all tokens [B, L, D] to patches [B, P, D]."""
    return _cross_logits(predictor.cross_attn_blocks, text, image, None)


def image_logits(predictor: ImagePredictor, patches: Tensor, text: Tensor, valid: Tensor | None) -> Tensor:
    """The last block's logits [B, h, P, L] from all patches [B, P, D] to tokens [B, L, D]; valid: [B, L]."""
    x = predictor.decoder_embed(patches) + predictor.get_buffer("pos_embedding")
    return _cross_logits(predictor.cross_attn_blocks, x, text, valid)


def _cross_logits(blocks: nn.ModuleList, x: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
    samples, length, width = x.shape
    place = torch.arange(samples * length, device=x.device)
    count = torch.full_like(place, length)
    slots = Slots(place // length, place % length, place, count, length, samples)
    packed = x.reshape(-1, width)
    for block in blocks[:-1]:
        packed = block(packed, y, slots, valid)
    last: CrossBlock = blocks[-1]  # type: ignore[assignment]
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
        q = F.linear(last.ln_x(packed.to(weight.dtype)), weight[:width], bias[:width]).view(
            samples, length, -1
        )
        k = F.linear(last.ln_y(y.to(weight.dtype)), weight[width : 2 * width], bias[width : 2 * width])
        q, k = _split(q, last.attn.heads), _split(k, last.attn.heads)
        return q @ k.mT / math.sqrt(q.shape[-1])
