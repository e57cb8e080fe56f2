"""One face for the two towers of an open_clip model: all tokens, not only the pooled one.

`embed` gives what a mask token can replace, `encode` runs the rest. Sizes are read from the modules.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import open_clip
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from macco.pipeline.errors import UserError
from macco.train.clip.blocks import Block, quicken


@dataclass(frozen=True)
class Encoded:
    """One modality after the final norm and the projection to the joint space of width D."""

    tokens: Tensor  # [B, N, D]; image: `prefix` class tokens, then P patches, row by row
    cls: Tensor  # [B, D]: what the contrast compares, not normalised
    hidden: Tensor  # [B, N, W]: the tokens after the final norm, before the projection


class Tower(Protocol):
    """What the model needs of a tower of width W."""

    width: int

    def parameters(self) -> list[nn.Parameter]:
        """The tower's own parameters."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""

    def ending(self) -> list[nn.Parameter]:
        """The parameters of what comes after the blocks: norm, pooling, projection."""

    def embed(self, inputs: Tensor) -> Tensor:
        """Inputs to maskable embeddings [B, N, W], before positions are added."""

    def ends(self, inputs: Tensor) -> Tensor | None:
        """Where each sample's pooled token is, [B] int64; None where it does not depend on the sample."""

    def encode(self, embedded: Tensor, ends: Tensor | None) -> Encoded:
        """Embeddings [B, N, W] to features."""


def encode_both(
    tower: Tower, inputs: Tensor, mask: Tensor | None, mask_token: Tensor
) -> tuple[Encoded, Encoded | None]:
    """Encode a batch as it is and, where `mask` [B, N] is given, with the mask token [W] at its set places.

    Both go through the tower in one pass of 2B samples. A frozen tower's plain pass keeps no graph.
    """
    x, ends = tower.embed(inputs), tower.ends(inputs)
    if mask is None:
        return tower.encode(x, ends), None
    masked = torch.where(mask[..., None], mask_token.to(x.dtype), x)
    if not any(p.requires_grad for p in tower.parameters()):
        with torch.no_grad():
            plain = tower.encode(x, ends)
        return plain, tower.encode(masked, ends)
    both = tower.encode(torch.cat([x, masked]), None if ends is None else torch.cat([ends, ends]))
    halves = [x.chunk(2) for x in (both.tokens, both.cls, both.hidden)]
    return Encoded(*(x[0] for x in halves)), Encoded(*(x[1] for x in halves))


def embed_patches(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """A convolution whose patches do not overlap, as one matrix product: [B, C, S, S] to [B, P, W].

    In bf16 on an H200 cuDNN's kernels for it leave the units for matrices aside: 18.6 ms for 1,024 images of ViT-B/32,
    forward and back, where the product takes 2.0 (docs/measurements).
    """
    rows, columns = convolution.kernel_size
    batch, channels, height, width = images.shape
    grid = images.view(batch, channels, height // rows, rows, width // columns, columns)
    patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * rows * columns)
    return F.linear(patches, convolution.weight.flatten(1), convolution.bias)


class ClipImage:
    """open_clip's own vision transformer."""

    prefix = 1

    def __init__(self, visual: VisionTransformer) -> None:
        if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
            raise UserError(
                "this vision tower pools by attention (CoCa): choose a ViT CLIP or a SigLIP model"
            )
        if not isinstance(visual.patch_dropout, nn.Identity):
            raise UserError("patch dropout would drop masked patches: build the model with patch_dropout 0")
        quicken(visual.transformer.resblocks)
        self.module = visual
        self.width: int = visual.class_embedding.shape[0]
        self.grid: tuple[int, int] = tuple(visual.grid_size)
        self.patch: tuple[int, int] = tuple(visual.patch_size)

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.module.transformer.resblocks
        return blocks

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def ending(self) -> list[nn.Parameter]:
        return [*self.module.ln_post.parameters(), self.module.proj]

    def embed(self, inputs: Tensor) -> Tensor:
        """Images [B, 3, S, S] to patch embeddings [B, P, W]."""
        return embed_patches(self.module.conv1, inputs)

    def ends(self, inputs: Tensor) -> None:
        return None

    def leave_patches(self) -> None:
        """No loss reaches the tower by its patches: its last block goes back by the class token alone."""
        last = self.blocks[-1]
        if isinstance(last, Block) and self.module.pool_type == "tok":
            last.learning = self.prefix

    def encode(self, embedded: Tensor, ends: Tensor | None) -> Encoded:
        v = self.module
        cls = v.class_embedding.to(embedded.dtype).expand(len(embedded), 1, -1)
        x = torch.cat([cls, embedded], dim=1) + v.positional_embedding.to(embedded.dtype)
        x = v.transformer(v.ln_pre(x))
        tokens = v.ln_post(x)
        if v.pool_type == "tok":
            pooled = tokens[:, 0]
        elif v.final_ln_after_pool:
            pooled = v.ln_post(x[:, 1:].mean(1))
        else:
            pooled = tokens[:, 1:].mean(1)
        return Encoded(tokens @ v.proj, pooled @ v.proj, tokens)

    def patches(self, encoded: Encoded) -> Tensor:
        """The patches in the joint space, [B, P, D], each as if it were all that is pooled; not normalised."""
        return encoded.tokens[:, self.prefix :]


class TimmImage:
    """A timm vision transformer as open_clip wraps it (SigLIP): patches only, pooled by timm's head."""

    def __init__(self, visual: TimmModel) -> None:
        trunk = visual.trunk
        if not isinstance(trunk, TimmViT) or not isinstance(trunk.patch_embed, PatchEmbed):
            raise UserError(
                f"the vision tower {type(trunk).__name__} is no plain ViT: choose a ViT CLIP or SigLIP"
            )
        if not isinstance(trunk.patch_drop, nn.Identity):
            raise UserError("patch dropout would drop masked patches: build the model with patch_dropout 0")
        self.module = visual
        self.width: int = trunk.embed_dim
        self.prefix: int = trunk.num_prefix_tokens
        self.grid: tuple[int, int] = tuple(trunk.patch_embed.grid_size)
        self.patch: tuple[int, int] = tuple(trunk.patch_embed.patch_size)

    @property
    def blocks(self) -> nn.ModuleList:
        return nn.ModuleList(self.module.trunk.blocks)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def ending(self) -> list[nn.Parameter]:
        trunk = self.module.trunk
        parts = (trunk.norm, trunk.attn_pool, trunk.fc_norm, trunk.head, self.module.head)
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def embed(self, inputs: Tensor) -> Tensor:
        """Images [B, 3, S, S] to patch embeddings [B, P, W]."""
        own = self.module.trunk.patch_embed
        embedded: Tensor = own.norm(embed_patches(own.proj, inputs))
        return embedded

    def ends(self, inputs: Tensor) -> None:
        return None

    def encode(self, embedded: Tensor, ends: Tensor | None) -> Encoded:
        trunk = self.module.trunk
        x = trunk.norm_pre(trunk._pos_embed(embedded))
        for block in trunk.blocks:
            remember = trunk.grad_checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if remember else block(x)
        x = trunk.norm(x)
        return Encoded(self._projected(x), self.module.head(trunk.forward_head(x)), x)

    def patches(self, encoded: Encoded) -> Tensor:
        hidden, pool = encoded.hidden[:, self.prefix :], self.module.trunk.attn_pool
        return self._projected(hidden if pool is None else pooled_alone(pool, hidden))

    def _projected(self, x: Tensor) -> Tensor:
        trunk = self.module.trunk
        projected: Tensor = self.module.head(trunk.head(trunk.fc_norm(x)))
        return projected


class Text:
    """open_clip's text transformer, whether inside CLIP (its parts lie on the model) or CustomTextCLIP."""

    def __init__(self, clip: Any) -> None:
        core = getattr(clip, "text", clip)
        if core is not clip and not isinstance(core, TextTransformer):
            raise UserError(
                f"text tower {type(core).__name__} is not supported: choose one of open_clip's own"
            )
        if getattr(core, "cls_emb", None) is not None or getattr(core, "use_pad_mask", False):
            raise UserError("text towers with a class embedding (CoCa) or a padding mask are not supported")
        quicken(core.transformer.resblocks)
        self.module = core
        self.pool: str = core.text_pool_type if core is clip else core.pool_type
        self.eos: int = core.text_eos_id if core is clip else core.eos_id
        if self.pool not in ("argmax", "eos", "last", "first"):
            raise UserError(f"text pooling {self.pool!r} gives no single feature: choose another model")
        self.width: int = core.token_embedding.embedding_dim
        self.vocabulary: int = core.token_embedding.num_embeddings
        self.context: int = core.positional_embedding.shape[0]
        # Without a causal mask padding is attended, and "last" pools at the end: captions stay uncut.
        self.fixed_length = core.attn_mask is None or self.pool == "last"

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.module.transformer.resblocks
        return blocks

    def parameters(self) -> list[nn.Parameter]:
        """The tower's own parameters: inside CLIP the module holds the vision tower and the scale too."""
        outside = ("visual.", "logit_scale", "logit_bias")
        return [p for name, p in self.module.named_parameters() if not name.startswith(outside)]

    def ending(self) -> list[nn.Parameter]:
        found, projection = list(self.module.ln_final.parameters()), self.module.text_projection
        if isinstance(projection, nn.Linear):
            return [*found, *projection.parameters()]
        return found if projection is None else [*found, projection]

    def embed(self, inputs: Tensor) -> Tensor:
        """Token ids [B, L] to token embeddings [B, L, W]."""
        embedded: Tensor = self.module.token_embedding(inputs)
        return embedded

    def ends(self, inputs: Tensor) -> Tensor:
        """Position of the pooled token, [B]."""
        if self.pool == "argmax":
            return inputs.argmax(1)
        if self.pool == "eos":
            return (inputs == self.eos).int().argmax(1)
        return torch.full_like(inputs[:, 0], inputs.shape[1] - 1 if self.pool == "last" else 0)

    def padded(self, tokens: Tensor, length: int) -> Tensor:
        """Token ids [N, L] made longer by padding, which is 0; a fixed-length tower's are as long as they can be."""
        return nn.functional.pad(tokens, (0, length - tokens.shape[1]))

    def valid(self, tokens: Tensor) -> Tensor:
        """Which positions [B, L] hold the caption, its start and end tokens included: the rest is padding.

        A fixed-length tower's tokenizer pads by repeating the end token: the first of that run is the end.
        """
        places = torch.arange(tokens.shape[1], device=tokens.device)
        if not self.fixed_length:
            return places <= self.ends(tokens)[:, None]
        return places <= ((tokens != tokens[:, -1:]) * places).amax(1, keepdim=True) + 1

    def encode(self, embedded: Tensor, ends: Tensor | None) -> Encoded:
        core, length = self.module, embedded.shape[1]
        if self.fixed_length and length != self.context:
            raise UserError(
                f"this text tower reads its padding: pad captions to {self.context} tokens, not {length}"
            )
        x = embedded + core.positional_embedding[:length].to(embedded.dtype)
        causal = core.attn_mask[:length, :length] if core.attn_mask is not None else None
        tokens = hidden = core.ln_final(core.transformer(x, attn_mask=causal))
        if isinstance(core.text_projection, nn.Linear):
            tokens = core.text_projection(tokens)
        elif core.text_projection is not None:
            tokens = tokens @ core.text_projection
        return Encoded(tokens, tokens[torch.arange(len(tokens), device=tokens.device), ends], hidden)

    def together(self, *sets: Tensor) -> Tensor:
        """Token ids [n, L], [m, L'], ... as one [n + m + ..., the longest L], to be encoded in one pass."""
        length = max(tokens.shape[1] for tokens in sets)
        return torch.cat([self.padded(tokens, length) for tokens in sets])


def wide(x: Tensor) -> Tensor:
    """Float32 where the tensor is narrower."""
    return x if x.dtype == torch.float64 else x.float()


def pooled_alone(pool: Any, hidden: Tensor) -> Tensor:
    """What timm's attention pooling makes of each token [B, N, W] if it were the only one, [B, N, W']."""
    placed = hidden if pool.pos_embed is None else hidden + pool.pos_embed.to(hidden.dtype)
    width = pool.kv.out_features // 2  # keys, then values
    value = nn.functional.linear(
        placed, pool.kv.weight[width:], None if pool.kv.bias is None else pool.kv.bias[width:]
    )
    x: Tensor = pool.proj_drop(pool.proj(value))
    return x if pool.mlp is None else x + pool.mlp(pool.norm(x))


def pixel_statistics(visual: nn.Module) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, for pixels in 0..1, that the model was trained with."""
    mean = getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN
    std = getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD
    return list(mean), list(std)


def image_tower(visual: nn.Module) -> ClipImage | TimmImage:
    """Wrap a model's vision tower.

    Raises:
        UserError: it gives no patch tokens (ResNets and other convolutional towers).
    """
    if isinstance(visual, VisionTransformer):
        return ClipImage(visual)
    if isinstance(visual, TimmModel):
        return TimmImage(visual)
    raise UserError(
        f"the vision tower {type(visual).__name__} gives no patch tokens: choose a ViT CLIP or SigLIP"
    )
