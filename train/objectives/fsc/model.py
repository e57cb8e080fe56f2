"""FSC-CLIP: a CLIP under its contrast and two calibrated losses on hard negatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import Encoded, wide
from macco.train.data.batch import Batch
from macco.train.losses.pairs import PairIds
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.fsc.losses import focal_hard_negatives, local_scores
from macco.train.objectives.fsc.settings import FscConfig
from macco.train.objectives.pairwise import PairModel, rows_with_negatives
from macco.train.objectives.together import pair_ids


@dataclass(frozen=True)
class Encodings:
    """Images, and their captions with the hard negatives behind them: [b (1 + K), ...], captions first."""

    image: Encoded
    text: Encoded
    tokens: Tensor  # [b (1 + K), L]


@dataclass(frozen=True)
class Whole:
    """What the losses know of the whole step."""

    ids: PairIds | None  # of this rank's pairs
    rows: Tensor  # see `focal_hard_negatives`


class FscModel(PairModel[Batch, Encodings, Whole]):
    """An open_clip model under the FSC-CLIP objective; it has no parameters of its own."""

    def __init__(self, clip: nn.Module, config: FscConfig) -> None:
        super().__init__(clip)
        self.config = config
        self.weights = {"contrast": 1.0, "global": config.global_weight, "local": config.local_weight}
        self.after_step()

    def encode(self, batch: Batch) -> tuple[Features, Encodings]:
        """Both towers on the batch; hard negatives in one pass with the captions."""
        tokens = batch.tokens
        if self.config.candidates:
            if batch.negatives is None or batch.negatives.shape[1] != self.config.candidates:
                raise UserError(f"batches hold no {self.config.candidates} hard negatives per caption")
            tokens = self.text.together(tokens, batch.negatives.flatten(0, 1))
        text = self.text.encode(self.text.embed(tokens), self.text.ends(tokens))
        encodings = Encodings(self.encoded_images(batch), text, tokens)
        image, captions = (F.normalize(wide(x.cls), dim=-1) for x in (encodings.image, text))
        count = len(batch)
        made = captions[count:].view(count, self.config.candidates, captions.shape[-1])
        return {"image": image, "text": captions[:count], "negatives": made}, encodings

    def whole(self, batches: Sequence[Batch]) -> Whole:
        ids = None if self.config.duplicate_negatives else pair_ids(batches)
        return Whole(ids, rows_with_negatives(batches))

    def across(self, features: Features, whole: Whole) -> Losses:
        """CLIP's own contrast, of this rank's features against those of all ranks."""
        return {"contrast": self.hard_contrast(features, whole.ids, None)}

    def within(self, batch: Batch, features: Features, seen: Encodings, whole: Whole) -> Losses:
        """The losses on each pair's own hard negatives, unweighted."""
        with torch.autocast(batch.tokens.device.type, enabled=False):
            return self._hard(batch, features, seen, whole)

    def _hard(self, batch: Batch, features: Features, seen: Encodings, whole: Whole) -> Losses:
        c, losses = self.config, Losses()
        if not c.candidates or batch.negative_valid is None:
            return losses
        scale, present = self.scale(), batch.negative_valid
        loss = partial(focal_hard_negatives, gamma=c.gamma, smoothing=c.smoothing, reference=c.reference)
        if c.global_weight:
            captions = torch.cat([features["text"][:, None], features["negatives"]], 1)
            scores = scale * (captions @ features["image"][:, :, None])[..., 0]
            losses["global"] = loss(scores, present, whole.rows)
        if c.local_weight:
            losses["local"] = loss(self._local(seen, scale), present, whole.rows)
        return losses

    def _local(self, encodings: Encodings, scale: Tensor) -> Tensor:
        """Scores [b, 1 + K] of each image with its captions."""
        count, kinds = len(encodings.image.cls), self.config.candidates
        attended = self.text.valid(encodings.tokens)
        if not self.text.fixed_length:  # SigLIP's captions have no start token
            attended = attended & (torch.arange(attended.shape[1], device=attended.device) > 0)
        tokens, shown = (
            torch.cat([x[:count, None], x[count:].view(count, kinds, *x.shape[1:])], 1)
            for x in (wide(encodings.text.tokens), attended)
        )
        patches = wide(encodings.image.tokens[:, self.image.prefix :])
        return local_scores(patches, tokens, shown, scale, reference=self.config.reference)
