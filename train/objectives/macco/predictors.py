"""The two training-only networks that rebuild what was masked. M is the number of masked positions.

Both only cross-attend, so a masked position's answer depends on no other query: they run on masked positions
alone, packed to [M, D], and this is exact.
"""

import torch
import torch.nn.functional as F
from open_clip.pos_embed import get_2d_sincos_pos_embed
from torch import Tensor, nn

from macco.train.data.slots import Slots


def inject(tokens: Tensor, cls: Tensor) -> Tensor:
    """Global-to-local injection: the mean of each token and its sample's pooled feature.

    tokens: [B, N, D]; cls: [B, D]. Returns [B, N, D].
    """
    return (tokens + cls[:, None]) / 2


class CrossAttention(nn.Module):
    """Attention from packed queries to their own sample's keys; parameters as nn.MultiheadAttention's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, y: Tensor, slots: Slots, valid: Tensor | None) -> Tensor:
        """x: queries [M, D]; y: keys, values [B, N, D]; valid: bool [B, N], None for all. Returns [M, D]."""
        samples, width = len(y), x.shape[1]
        q = F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])
        k, v = F.linear(y, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        q = q.new_zeros(samples * slots.width, width).index_copy(0, slots.cell, q).view(samples, -1, width)
        q, k, v = (t.view(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k, v))
        mask = None if valid is None else valid[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        packed: Tensor = self.out_proj(out.reshape(samples * slots.width, width)[slots.cell])
        return packed


class CrossBlock(nn.Module):
    """Residual cross-attention block, pre-norm on both sides."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_x, self.ln_y, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CrossAttention(width, heads)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor, y: Tensor, slots: Slots, valid: Tensor | None) -> Tensor:
        """Shapes as in CrossAttention."""
        x = x + self.attn(self.ln_x(x), self.ln_y(y), slots, valid)
        out: Tensor = x + self.mlp(self.ln_post(x))
        return out


class TextPredictor(nn.Module):
    """Masked words from the image."""

    def __init__(self, width: int, heads: int, depth: int, vocabulary: int) -> None:
        super().__init__()
        self.cross_attn_blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(depth))
        self.ln = nn.LayerNorm(width)
        self.linear = nn.Linear(width, vocabulary)

    def forward(self, text: Tensor, image: Tensor, slots: Slots) -> Tensor:
        """text: masked captions [B, L, D]; image: full images [B, N, D]. Returns logits [M, vocabulary]."""
        x = text[slots.sample, slots.position]
        for block in self.cross_attn_blocks:
            x = block(x, image, slots, None)
        logits: Tensor = self.linear(self.ln(x))
        return logits


class ImagePredictor(nn.Module):
    """Masked pixels from the caption."""

    def __init__(
        self, width: int, heads: int, depth: int, grid: tuple[int, int], patch: tuple[int, int]
    ) -> None:
        super().__init__()
        self.decoder_embed = nn.Linear(width, width)
        position = torch.from_numpy(get_2d_sincos_pos_embed(width, grid[0])).float()
        self.register_buffer("pos_embedding", position[None])
        self.cross_attn_blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(depth))
        self.ln = nn.LayerNorm(width)
        self.proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, patch[0] * patch[1] * 3))

    def forward(self, patches: Tensor, text: Tensor, slots: Slots, valid: Tensor | None) -> Tensor:
        """patches: masked images [B, P, D]; text: full captions [B, L, D]; valid: their positions [B, L].

        Returns pixels [M, p * p * 3], in the order of `losses.masked.patch_pixels`.
        """
        x = self.decoder_embed(patches[slots.sample, slots.position])
        x = x + self.get_buffer("pos_embedding")[0, slots.position]
        for block in self.cross_attn_blocks:
            x = block(x, text, slots, valid)
        pixels: Tensor = self.proj(self.ln(x))
        return pixels
