"""MACCO's step as the authors' public code makes it, in our own words and on our model's parameters.

What it repeats of theirs, for this is what a step of theirs costs:

- captions padded to the context, 77 tokens, through the text tower, and all of them attended to by the image predictor;
- the residual stream with the position first, [N, 2B, W], which layer norms copy;
- each attention map averaged over heads and kept until the next step, which forbids fused attention;
- both predictors at every position: log-probabilities of the whole vocabulary [B, 77, V], turned for their loss, and
  the squared error of every patch, of which masks keep a few;
- masks put in by multiplication, all tokens normalised though no loss reads them, both directions of a contrast as
  products of their own;
- PyTorch's default AdamW, which on the CPU goes through the parameters one operation at a time.

What it leaves out: their loader and their log. Weights and losses are those of `Macco` with `method.reference`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.train.objectives.macco.batch import MaskedBatch
from macco.train.objectives.macco.model import Macco


class PublicStep:
    """The loss of a batch, computed anew by each call."""

    def __init__(self, model: Macco, batch: MaskedBatch) -> None:
        """batch: cut to its longest caption."""
        self.model = model
        pad = model.text.context - batch.tokens.shape[1]
        self.tokens, self.text_mask = F.pad(batch.tokens, (0, pad)), F.pad(batch.text_mask, (0, pad))
        self.images, self.patch_mask = batch.images, batch.patch_mask
        self.maps: list[Tensor] = []

    def __call__(self) -> Tensor:
        """The weighted sum of the losses."""
        model, method = self.model, self.model.method
        self.maps = []
        text, masked_text, end, masked_end = self._texts()
        image, masked_image, cls, masked_cls = self._images()
        views = [F.normalize(x, dim=-1) for x in (end, cls, masked_end, masked_cls)]
        words = self._words(_injected(masked_text, masked_end), _injected(image, cls).detach())
        pixels = self._pixels(_injected(masked_image, masked_cls).detach(), _injected(text, end))
        F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        scale = model.clip.logit_scale.exp()
        both = [torch.cat(views[side::2]) for side in (0, 1)]
        mir = (_contrast(views[2], views[0], scale) + _contrast(views[3], views[1], scale)) / 2
        total: Tensor = (
            method.contrast * _contrast(both[1], both[0], scale, 2)
            + method.mir * mir
            + method.mim * self._pixel_loss(pixels)
            + method.mlm * self._word_loss(words)
        )
        return total

    def _texts(self) -> tuple[Tensor, ...]:
        """Tokens [B, 77, D] as they are and masked, and their end tokens [B, D]."""
        core = self.model.text.module
        x = core.token_embedding(torch.cat([self.tokens, self.tokens]))
        x = self._masked(x, self.text_mask, self.model.text_mask_token) + core.positional_embedding
        x = core.ln_final(self._blocks(core.transformer.resblocks, x, core.attn_mask)) @ core.text_projection
        plain, masked = x[: len(self.tokens)], x[len(self.tokens) :]
        rows, ends = torch.arange(len(self.tokens)), self.tokens.argmax(-1)
        return plain, masked, plain[rows, ends], masked[rows, ends]

    def _images(self) -> tuple[Tensor, ...]:
        """Patches [B, P, D] as they are and masked, and their class tokens [B, D]."""
        visual = self.model.image.module
        x = visual.conv1(self.images).flatten(2).permute(0, 2, 1)
        x = torch.cat([visual.class_embedding + torch.zeros(len(x), 1, x.shape[-1]), x], 1)
        x = self._masked(torch.cat([x, x]), F.pad(self.patch_mask, (1, 0)), self.model.image_mask_token)
        x = visual.ln_pre(x + visual.positional_embedding)
        x = visual.ln_post(self._blocks(visual.transformer.resblocks, x, None)) @ visual.proj
        plain, masked = x[: len(self.images)], x[len(self.images) :]
        return plain[:, 1:], masked[:, 1:], plain[:, 0], masked[:, 0]

    @staticmethod
    def _masked(x: Tensor, mask: Tensor, token: Tensor) -> Tensor:
        """Embeddings [2B, N, W], the second half with the mask token where `mask` [B, N] is set."""
        where = torch.cat([torch.zeros_like(mask), mask])[..., None]
        return x * ~where + token * where

    def _blocks(self, blocks: Any, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x.permute(1, 0, 2)
        for block in blocks:
            y = block.ln_1(x)
            x = x + self._attended(block.attn, block.attn.num_heads, y, y, mask)
            x = x + block.mlp(block.ln_2(x))
        return x.permute(1, 0, 2)

    def _attended(self, attn: Any, heads: int, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of queries [N, B, W] to y [N', B, W]; its map is kept."""
        out, kept = F.multi_head_attention_forward(
            x, y, y, x.shape[-1], heads, attn.in_proj_weight, attn.in_proj_bias, None, None, False, 0.0,
            attn.out_proj.weight, attn.out_proj.bias, need_weights=True, attn_mask=mask,
        )  # fmt: skip
        assert kept is not None
        self.maps.append(kept)
        return out

    def _predicted(self, blocks: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.permute(1, 0, 2), y.permute(1, 0, 2)
        for block in blocks:
            each: Any = block
            x = x + self._attended(each.attn, each.attn.heads, each.ln_x(x), each.ln_y(y))
            x = x + each.mlp(each.ln_post(x))
        return x.permute(1, 0, 2)

    def _words(self, text: Tensor, image: Tensor) -> Tensor:
        predictor: Any = self.model.prediction_text
        x = predictor.ln(self._predicted(predictor.cross_attn_blocks, text, image))
        return F.log_softmax(predictor.linear(x), dim=-1)

    def _pixels(self, patches: Tensor, text: Tensor) -> Tensor:
        predictor: Any = self.model.prediction_image
        x = predictor.decoder_embed(patches) + predictor.pos_embedding
        pixels: Tensor = predictor.proj(predictor.ln(self._predicted(predictor.cross_attn_blocks, x, text)))
        return pixels

    def _word_loss(self, words: Tensor) -> Tensor:
        error = F.nll_loss(words.permute(0, 2, 1), self.tokens, reduction="none")
        return _mean(error, self.text_mask)

    def _pixel_loss(self, pixels: Tensor) -> Tensor:
        rows, columns = self.model.image.patch
        size, grid = len(self.images), self.model.image.grid
        x = self.images.reshape(size, 3, grid[0], rows, grid[1], columns)
        target = torch.einsum("nchpwq->nhwpqc", x).reshape(size, grid[0] * grid[1], rows * columns * 3)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        return _mean(F.mse_loss(pixels, target, reduction="none").mean(-1), self.patch_mask)


def _injected(tokens: Tensor, pooled: Tensor) -> Tensor:
    return (tokens + pooled[:, None]) / 2


def _contrast(x: Tensor, y: Tensor, scale: Tensor, views: int = 1) -> Tensor:
    """Both directions between x and y [V B, D]; the partner of every view is the first one."""
    labels = torch.arange(len(x) // views).repeat(views)
    return (F.cross_entropy(scale * x @ y.T, labels) + F.cross_entropy(scale * y @ x.T, labels)) / 2


def _mean(error: Tensor, mask: Tensor) -> Tensor:
    """Errors [B, N] to the mean over samples of the mean over masked places."""
    each = (error * mask).sum(1) / mask.sum(1).clamp(min=1)
    return each[mask.sum(1) > 0].mean()
