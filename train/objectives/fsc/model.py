"""FSC-CLIP: a CLIP under its contrast and two calibrated losses on hard negatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import Encoded
from macco.train.data.batch import Batch
from macco.train.distributed import ranks
from macco.train.losses.contrastive import clip_contrast
from macco.train.losses.pairs import PairIds, same
from macco.train.objectives.fsc.losses import focal_hard_negatives, local_scores
from macco.train.objectives.fsc.settings import FscConfig
from macco.train.objectives.model import Model


@dataclass(frozen=True)
class Encodings:
    """Images, and their captions with the hard negatives behind them: [b (1 + K), ...], captions first."""

    image: Encoded
    text: Encoded
    tokens: Tensor  # [b (1 + K), L]


class FscModel(Model):
    """An open_clip model under the FSC-CLIP objective; it has no parameters of its own."""

    def __init__(self, clip: nn.Module, config: FscConfig) -> None:
        super().__init__(clip)
        self.config = config
        self.after_step()

    def after_step(self) -> None:
        self.clamp_scale()

    def compile_blocks(self) -> None:
        self.compile_towers()

    def encode(self, batch: Batch) -> Encodings:
        """Both towers on the batch; hard negatives in one pass with the captions."""
        tokens = batch.tokens
        if self.config.candidates:
            if batch.negatives is None or batch.negatives.shape[1] != self.config.candidates:
                raise UserError(f"batches hold no {self.config.candidates} hard negatives per caption")
            made = batch.negatives.flatten(0, 1)
            length = max(tokens.shape[1], made.shape[1])
            tokens = torch.cat([self.text.padded(each, length) for each in (tokens, made)])
        image = self.image.encode(self.image.embed(self.pixels(batch.images)), None)
        return Encodings(image, self.text.encode(self.text.embed(tokens), self.text.ends(tokens)), tokens)

    def features(self, encodings: Encodings) -> Tensor:
        """The normalised pooled features [b, 2 + K, D] in float32 or better: text, image, hard negatives."""
        count = len(encodings.image.cls)
        texts = encodings.text.cls
        made = texts[count:].view(count, self.config.candidates, texts.shape[-1])
        stacked = torch.cat([texts[:count, None], encodings.image.cls[:, None], made], 1)
        return F.normalize(_wide(stacked), dim=-1)

    def contrastive(self, features: Tensor, ids: PairIds | None = None) -> dict[str, Tensor]:
        """CLIP's own contrast, of this rank's features [b, 2 + K, D] against those of all ranks."""
        first = ranks.rank() * len(features)
        text, image = features[:, :2].transpose(0, 1).unsqueeze(1)  # [1, b, D] each
        every = ranks.gather(features[:, :2].contiguous()).transpose(0, 1).unsqueeze(1)
        shared = None if ids is None else same(ids, ids.gathered(), first)
        loss = clip_contrast(text, image, every[0], every[1], self._scale(), first, same=shared)
        return {"contrast": loss}

    def pair_ids(self, batches: Sequence[Batch]) -> PairIds | None:
        """What the pairs of this rank's micro-batches are made of; None where that does not count."""
        if self.config.duplicate_negatives or batches[0].image_ids is None:
            return None
        images = [batch.image_ids for batch in batches if batch.image_ids is not None]
        captions = [batch.caption_ids for batch in batches if batch.caption_ids is not None]
        return PairIds(torch.cat(images), torch.cat(captions))

    def hard(self, batch: Batch, encodings: Encodings, rows: Tensor) -> dict[str, Tensor]:
        """The losses on each pair's own hard negatives, unweighted; rows: see `focal_hard_negatives`."""
        c, losses = self.config, dict[str, Tensor]()
        if not c.candidates or batch.negative_valid is None:
            return losses
        scale, present = self._scale(), batch.negative_valid
        loss = partial(focal_hard_negatives, gamma=c.gamma, smoothing=c.smoothing, reference=c.reference)
        if c.global_weight:
            features = self.features(encodings)
            captions = torch.cat([features[:, :1], features[:, 2:]], 1)
            scores = scale * (captions @ features[:, 1, :, None])[..., 0]
            losses["global"] = loss(scores, present, rows)
        if c.local_weight:
            scores = self._local(encodings, scale)
            losses["local"] = loss(scores, present, rows)
        return losses

    def _local(self, encodings: Encodings, scale: Tensor) -> Tensor:
        """Scores [b, 1 + K] of each image with its captions."""
        count, kinds = len(encodings.image.cls), self.config.candidates
        attended = self.text.valid(encodings.tokens)
        if not self.text.fixed_length:  # SigLIP's captions have no start token
            attended = attended & (torch.arange(attended.shape[1], device=attended.device) > 0)
        tokens, shown = (
            torch.cat([x[:count, None], x[count:].view(count, kinds, *x.shape[1:])], 1)
            for x in (_wide(encodings.text.tokens), attended)
        )
        patches = _wide(encodings.image.tokens[:, self.image.prefix :])
        return local_scores(patches, tokens, shown, scale, reference=self.config.reference)

    def _scale(self) -> Tensor:
        return _wide(self.clip.logit_scale).exp().squeeze()

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the losses that are on."""
        weights = {"contrast": 1.0, "global": self.config.global_weight, "local": self.config.local_weight}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """All losses of one batch, unweighted, and "loss", their weighted sum."""
        encodings = self.encode(batch)
        with torch.autocast(batch.tokens.device.type, enabled=False):
            losses = self.contrastive(self.features(encodings), self.pair_ids([batch]))
            losses |= self.hard(batch, encodings, rows_with_negatives([batch]))
        return losses | {"loss": self.weighted(losses)}


def rows_with_negatives(batches: Sequence[Batch]) -> Tensor:
    """Pairs with a hard negative: all batches, all ranks, divided by the ranks; never 0."""
    found = [batch.negative_valid.any(1).sum() for batch in batches if batch.negative_valid is not None]
    count = torch.stack(found).sum().float() if found else batches[0].tokens.new_zeros((), dtype=torch.float)
    return ranks.mean(count).clamp(min=1 / ranks.world())


def _wide(x: Tensor) -> Tensor:
    """Float32 where the tensor is narrower."""
    return x if x.dtype == torch.float64 else x.float()
