"""A joint encoder: one stream of caption tokens and grounded regions through VisualBERT, and a matching head."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import VisualBertConfig, VisualBertModel

from macco.pipeline.errors import UserError
from macco.train.losses.congruence import Attention
from macco.train.objectives.joint.regions import GEOMETRY, geometry


@dataclass(frozen=True)
class Pairs:
    """B captions, each with the regions of an image. L tokens and V regions, padded at the end."""

    tokens: Tensor  # [B, L] int64, special tokens included; the first one pools
    present: Tensor  # [B, L] bool: tokens, special ones too, that are no padding
    words: Tensor  # [B, L] bool: tokens that are neither padding nor special
    features: Tensor  # [B, V, D]: see regions.pool_regions
    boxes: Tensor  # [B, V, 4]: x0, y0, x1, y1 in 0..1
    regions: Tensor  # [B, V] bool: regions that are no padding


class FusedAttention(nn.Module):
    """VisualBERT's self-attention, its parameters under the same names, without the attention matrix."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.heads: int = plain.num_attention_heads
        self.dropout: float = plain.dropout.p
        self.query, self.key, self.value = plain.query, plain.key, plain.value

    def forward(self, x: Tensor, mask: Tensor, output_attentions: bool = False) -> tuple[Tensor]:
        """x: [B, N, W]; mask: as VisualBERT makes it, added to the logits. Returns ([B, N, W],)."""
        q, k, v = (self.split(part(x)) for part in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype), dropout_p=dropout)
        return (out.transpose(1, 2).flatten(2),)

    def split(self, x: Tensor) -> Tensor:
        """[B, N, W] to [B, heads, N, W / heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def logits(self, x: Tensor) -> Tensor:
        """Q K^T / sqrt(d) of the same input, [B, heads, N, N], without mask; in float32 inside autocast too."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.query.weight.dtype)
            q, k = self.split(self.query(x)), self.split(self.key(x))
            return q @ k.mT / math.sqrt(q.shape[-1])


class JointEncoder(nn.Module):
    """Matching scores of pairs, and the last layer's attention where a loss asks for it."""

    def __init__(self, bert: Any) -> None:
        """Wrap a transformers.VisualBertModel that takes regions of D features and 7 numbers.

        Raises:
            UserError: images join the text only in an additional layer.
        """
        super().__init__()
        if bert.config.bypass_transformer:
            raise UserError(
                "this VisualBERT joins images in one layer only: choose one without bypass_transformer"
            )
        self.bert = bert
        for layer in bert.encoder.layer:
            layer.attention.self = FusedAttention(layer.attention.self)
        self.head = nn.Linear(bert.config.hidden_size, 1)

    @classmethod
    def random(cls, feature_width: int, vocabulary: int, **sizes: Any) -> "JointEncoder":
        """Random weights; `sizes` as VisualBertConfig names them (its defaults are the base model's)."""
        config = VisualBertConfig(
            vocab_size=vocabulary, visual_embedding_dim=feature_width + GEOMETRY, pad_token_id=0, **sizes
        )
        return cls(VisualBertModel(config))

    @classmethod
    def pretrained(cls, name: str, feature_width: int) -> "JointEncoder":
        """Weights by a name or folder that transformers knows; the projection of regions begins anew.

        Raises:
            UserError: they cannot be read.
        """
        try:
            bert = VisualBertModel.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise UserError(
                f"no VisualBERT at {name!r}: give a folder or a name on the Hub ({error})".splitlines()[0]
            ) from error
        embeddings = bert.embeddings
        embeddings.visual_projection = nn.Linear(feature_width + GEOMETRY, bert.config.hidden_size)
        bert.config.visual_embedding_dim = feature_width + GEOMETRY
        return cls(bert)

    def forward(self, pairs: Pairs) -> Tensor:
        """Matching logits [B]: higher for what belongs together."""
        return self._score(pairs)

    def with_attention(self, pairs: Pairs) -> tuple[Tensor, Attention]:
        """The matching logits [B], and the last layer's attention among words and regions."""
        seen: list[Tensor] = []
        last = self.bert.encoder.layer[-1].attention.self
        handle = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            scores = self._score(pairs)
        finally:
            handle.remove()
        return scores, Attention.joint(last.logits(seen[-1]), pairs.words, pairs.regions)

    def _score(self, pairs: Pairs) -> Tensor:
        visual = torch.cat([pairs.features, geometry(pairs.boxes).to(pairs.features.dtype)], -1)
        found = self.bert(
            input_ids=pairs.tokens,
            attention_mask=pairs.present,
            visual_embeds=visual,
            visual_attention_mask=pairs.regions,
        )
        scores: Tensor = self.head(found.pooler_output)[:, 0]
        return scores
