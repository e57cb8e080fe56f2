"""CACR, IAIS or matching alone as an objective: a joint encoder over a CLIP's regions and tokens, and its losses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.losses.congruence import congruence
from macco.train.losses.matching import hardest, triplet_ranking
from macco.train.objectives.joint.batches import RegionBatch
from macco.train.objectives.joint.encoder import JointEncoder, Pairs
from macco.train.objectives.joint.regions import pool_regions
from macco.train.objectives.joint.settings import JointConfig
from macco.train.objectives.model import Model


@dataclass(frozen=True)
class Negatives:
    """Negatives of B anchors: places in the batch [B, K], and, for images, captions made offline."""

    places: Tensor  # [B, K] int64
    valid: Tensor  # [B, K] bool
    captions: Tensor | None = None  # [B, H, L'] int64
    captions_valid: Tensor | None = None  # [B, H] bool


class JointModel(Model):
    """The CLIP gives regions, words and a cheap similarity; only the encoder, or its image tower too, is trained."""

    def __init__(self, clip: nn.Module, objective: str, config: JointConfig) -> None:
        """objective: cacr, iais-singular, iais-distributed, or itm (matching alone).

        Raises:
            UserError: the CLIP's text tower reads padding, or sizes do not go together.
        """
        super().__init__(clip)
        self.config = config
        self.kind = None if objective == "itm" else objective
        if objective == "cacr" and config.row_normalised:
            self.kind = "row-normalised"
        if self.text.fixed_length or self.text.pool != "argmax":
            raise UserError("joint objectives read captions as CLIP does: choose a CLIP, not a SigLIP")
        for parameter in clip.parameters():
            parameter.requires_grad_(False)
        if config.tower == "trained":
            for parameter in self.image.parameters():
                parameter.requires_grad_(True)
        self.encoder = _encoder(config, self.region_width(), self.text.vocabulary, self.text.context)

    @torch.no_grad()
    def region_width(self) -> int:
        """The width of the features of a region."""
        parameter = next(self.image.module.parameters())
        size = [g * p for g, p in zip(self.image.grid, self.image.patch, strict=True)]
        embedded = self.image.embed(parameter.new_zeros(1, 3, *size))
        return self.image.encode(embedded, None).tokens.shape[-1]

    def compile_blocks(self) -> None:
        """torch.compile each layer of the encoder in place."""
        for layer in self.encoder.bert.encoder.layer[:-1]:  # the last one is listened to
            layer.compile(dynamic=True)

    def pairs(self, batch: RegionBatch) -> tuple[Pairs, Tensor]:
        """The B true pairs, and the images' pooled features [B, D]."""
        if batch.features is not None and batch.pooled is not None:
            features, pooled = batch.features.float(), batch.pooled.float()
        else:
            encoded = self.image.encode(self.image.embed(self.pixels(batch.images)), None)
            pooled = encoded.cls.detach()
            features = pool_regions(encoded.tokens[:, self.image.prefix :], batch.boxes, self.image.grid)
        return self._pairs(batch.tokens, features, batch.boxes, batch.regions), pooled

    def _pairs(self, tokens: Tensor, features: Tensor, boxes: Tensor, regions: Tensor) -> Pairs:
        present, words = read_tokens(tokens)
        return Pairs(tokens, present, words, features, boxes, regions)

    @torch.no_grad()
    def negatives(self, batch: RegionBatch, pooled: Tensor, *, image_anchored: bool) -> Negatives:
        """The hardest partners in the batch by CLIP's own similarity, and for images those made offline.

        Another caption of the same image is no negative, nor is an equal caption of another.
        """
        text = self.text.encode(self.text.embed(batch.tokens), self.text.ends(batch.tokens)).cls
        similarity = F.normalize(text.float(), dim=-1) @ F.normalize(pooled.float(), dim=-1).T
        images = [name.rpartition("/")[0] for name in batch.ids]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(images))}
        image = torch.tensor([numbers[name] for name in images]).to(similarity.device, non_blocking=True)
        same = image[:, None] == image
        same |= (batch.tokens[:, None] == batch.tokens).all(-1)
        similarity = (similarity.T if image_anchored else similarity).masked_fill(same, -torch.inf)
        offline = self.config.offline if image_anchored else 0
        places = hardest(similarity, max(0, self.config.negatives - offline))
        valid = similarity.gather(1, places).isfinite()
        if not offline:
            return Negatives(places, valid)
        return Negatives(places, valid, batch.negatives, batch.negative_valid)

    def losses(
        self, pairs: Pairs, negatives: Negatives, rows: slice, *, image_anchored: bool, tau: float
    ) -> dict[str, Tensor]:
        """Means over the anchors `rows`: "rank", where asked for "congruence", and "loss", their weighted sum.

        Image-anchored: negatives are captions, and attention among regions (direction V); else images and
        attention among words (L). tau: the factor of the attention loss.
        """
        own = _picked(pairs, lambda x: x[rows])
        losses: dict[str, Tensor] = {}
        if self.kind is None:
            positive = self.encoder(own)
        else:
            positive, attention = self.encoder.with_attention(own)
            attention = attention.mirrored() if image_anchored else attention
            losses["congruence"] = congruence(attention, self.kind).mean()
        others, valid = self._others(pairs, own, negatives, rows, image_anchored)
        negative = (
            self.encoder(others).view(valid.shape) if valid.numel() else positive.new_zeros(valid.shape)
        )
        losses["rank"] = triplet_ranking(positive, negative, valid, self.config.margin)
        share = self.config.weight * tau
        return losses | {"loss": losses["rank"] + (share * losses["congruence"] if self.kind else 0)}

    def _others(
        self, pairs: Pairs, own: Pairs, negatives: Negatives, rows: slice, image_anchored: bool
    ) -> tuple[Pairs, Tensor]:
        """Each anchor with its K negatives, [b * K], and which are valid [b, K]."""
        places, valid = negatives.places[rows], negatives.valid[rows]
        if not image_anchored:
            tokens = own.tokens.repeat_interleave(places.shape[1], 0)
            images = [x[places.flatten()] for x in (pairs.features, pairs.boxes, pairs.regions)]
            return self._pairs(tokens, *images), valid
        tokens = pairs.tokens[places]  # [b, K, L]
        if negatives.captions is not None and negatives.captions_valid is not None:
            made = negatives.captions[rows]
            length = max(tokens.shape[-1], made.shape[-1])
            # CLIP's padding is 0.
            tokens, made = (F.pad(t, (0, length - t.shape[-1])) for t in (tokens, made))
            tokens, valid = (
                torch.cat([tokens, made], 1),
                torch.cat([valid, negatives.captions_valid[rows]], 1),
            )
        count = tokens.shape[1]
        images = [x.repeat_interleave(count, 0) for x in (own.features, own.boxes, own.regions)]
        return self._pairs(tokens.flatten(0, 1), *images), valid

    def forward(self, batch: RegionBatch) -> dict[str, Tensor]:
        """Both kinds of step, their mean; the attention loss with its whole weight: for validation."""
        pairs, pooled = self.pairs(batch)
        found = [
            self.losses(
                pairs,
                self.negatives(batch, pooled, image_anchored=anchored),
                slice(None),
                image_anchored=anchored,
                tau=1.0,
            )
            for anchored in (True, False)
        ]
        return {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}


def read_tokens(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's tokens [B, L] to which are no padding, and which are words: neither padding, start nor end."""
    place, end = torch.arange(tokens.shape[1], device=tokens.device), tokens.argmax(1, keepdim=True)
    return place <= end, (place > 0) & (place < end)


def _picked(pairs: Pairs, pick: Callable[[Tensor], Tensor]) -> Pairs:
    return replace(pairs, **{name: pick(value) for name, value in vars(pairs).items()})


def _encoder(config: JointConfig, features: int, vocabulary: int, context: int) -> JointEncoder:
    if config.pretrained:
        encoder = JointEncoder.pretrained(config.pretrained, features)
        width = encoder.bert.config.hidden_size
        # Captions are in CLIP's tokens: the words begin anew, the layers do not.
        encoder.bert.set_input_embeddings(nn.Embedding(vocabulary, width, padding_idx=0))
        encoder.bert.config.vocab_size = vocabulary
        return encoder
    if config.width % config.heads:
        raise UserError(f"joint.heads {config.heads} do not divide joint.width {config.width}")
    sizes: dict[str, Any] = {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.width,
        "max_position_embeddings": context,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }
    return JointEncoder.random(features, vocabulary, **sizes)
