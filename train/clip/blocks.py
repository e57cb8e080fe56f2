"""open_clip's transformer block, computed in fewer passes over memory: the same parameters, the same function.

As it stands there, a step spends a sixth of its CPU time beside matrix products: attention that turns the
samples round and copies them, gradients of queries, keys and values each written into zeros of all three, an activation
of three operations that keeps two of their results.
"""

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn


class Block(ResidualAttentionBlock):  # type: ignore[misc]
    """Self-attention and a multilayer perceptron, each after a norm and beside a residual."""

    learning = 0  # how many of the first tokens' outputs carry a gradient; 0: all

    def forward(
        self,
        q_x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """q_x: [B, N, W]; k_x, v_x: None, for it attends to itself; attn_mask: [N, N], added. Returns [B, N, W]."""
        count = self.learning
        if not count or attn_mask is not None or not self._plain:
            attended = self._attention(self.ln_1(q_x), attn_mask)
            return self._perceptron(q_x + self.ls_1(attended))
        y = self.ln_1(q_x)
        q, k, v = self._projected(y)
        first = self._perceptron(q_x[:, :count] + self.ls_1(self._attended(q[:, :, :count], k, v)))
        with torch.no_grad():
            rest = self._perceptron(q_x[:, count:] + self.ls_1(self._attended(q[:, :, count:], k, v)))
        return torch.cat([first, rest], 1)

    @property
    def _plain(self) -> bool:
        """Whether the attention is PyTorch's, not one with adapters around it."""
        return type(self.attn) is nn.MultiheadAttention

    def _attention(self, y: Tensor, mask: Tensor | None) -> Tensor:
        if not self._plain:
            attended: Tensor = self.attention(y, attn_mask=mask)
            return attended
        q, k, v = self._projected(y)
        return self._attended(q, k, v, None if mask is None else mask.to(y.dtype))

    def _projected(self, y: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of y [B, N, W], each [B, h, N, W / h]."""
        packed = F.linear(y, self.attn.in_proj_weight, self.attn.in_proj_bias)
        return packed.view(*y.shape[:2], 3, self.attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        joined: Tensor = self.attn.out_proj(out.transpose(1, 2).flatten(2))
        return joined

    def _perceptron(self, x: Tensor) -> Tensor:
        y = self.mlp.c_fc(self.ln_2(x))
        y = _quick_gelu(y) if isinstance(self.mlp.gelu, QuickGELU) else self.mlp.gelu(y)
        out: Tensor = x + self.ls_2(self.mlp.c_proj(y))
        return out


def _quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), x overwritten: of its steps one tensor is kept for the backward pass."""
    return F.silu(x.mul_(1.702)).mul_(1 / 1.702)


def quicken(blocks: nn.ModuleList) -> None:
    """Make open_clip's plain blocks compute so, in place; others stay as they are."""
    each: Any
    for each in blocks:
        if type(each) is ResidualAttentionBlock and each.attn.batch_first:
            each.__class__ = Block
