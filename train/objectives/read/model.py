"""READ-CLIP: a CLIP under NegCLIP's contrast, an alignment of paraphrases, and captions written from captions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.distributed import ranks
from macco.train.losses.contrastive import clip_contrast
from macco.train.losses.pairs import PairIds, same, true_negatives
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.model import wide
from macco.train.objectives.pairwise import PairModel, pair_ids
from macco.train.objectives.read.batches import SiblingBatch
from macco.train.objectives.read.decoder import IGNORED, load_decoder
from macco.train.objectives.read.losses import alignment, reconstruction
from macco.train.objectives.read.settings import ReadConfig


@dataclass(frozen=True)
class Whole:
    """What the losses know of the whole step."""

    ids: PairIds | None  # of this rank's pairs
    negatives: Tensor | None  # [b, K] bool: which exist
    paraphrases: Tensor  # [b] bool: which exist
    rows: Tensor  # how many paraphrases there are of all ranks, divided by the ranks
    tokens: Tensor  # and labels


class ReadModel(PairModel[SiblingBatch, Tensor, Whole]):
    """An open_clip model under the READ-CLIP objective, with a frozen decoder beside it.

    `memory` turns a caption's pooled state, before its projection, into the one vector that the decoder attends to.
    """

    def __init__(self, clip: nn.Module, config: ReadConfig) -> None:
        super().__init__(clip)
        self.config = config
        self.weights = {
            "contrast": 1.0, "reconstruction": config.reconstruction, "alignment": config.alignment,
        }  # fmt: skip
        self.memory = self.decoder = None
        if config.reconstruction:
            decoder = load_decoder(config.decoder, config.dropout)
            self.decoder = self.beside(decoder)
            self.memory = nn.Linear(self.text.width, decoder.width, bias=False)

    def after_step(self) -> None:
        pass  # the scale is not clamped

    def encode(self, batch: SiblingBatch) -> tuple[Features, Tensor]:
        """What it gives beside the features: the captions' pooled states [b, W], before their projection."""
        c, count, sets = self.config, len(batch), [batch.tokens]
        if c.alignment:
            sets.append(batch.paraphrases)
        if c.negatives:
            if batch.negatives is None or batch.negatives.shape[1] != c.negatives:
                raise UserError(f"batches hold no {c.negatives} hard negatives per caption")
            sets.append(batch.negatives.flatten(0, 1))
        tokens = self.text.together(*sets)
        ends = self.text.ends(tokens)
        encoded = self.text.encode(self.text.embed(tokens), ends)
        parts = list(torch.split(F.normalize(wide(encoded.cls), dim=-1), [len(one) for one in sets]))
        features = {"text": parts.pop(0)}
        if c.alignment:
            features["paraphrases"] = parts.pop(0)
        if c.negatives:
            features["negatives"] = parts.pop(0).view(count, c.negatives, -1)
        features["image"] = F.normalize(wide(self.encoded_images(batch).cls), dim=-1)
        rows = torch.arange(count, device=tokens.device)
        return features, encoded.hidden[rows, ends[:count]]

    def whole(self, batches: Sequence[SiblingBatch]) -> Whole:
        ids = None if self.config.duplicate_negatives else pair_ids(batches)
        exist = [batch.negative_valid for batch in batches if batch.negative_valid is not None]
        paraphrases = torch.cat([batch.paraphrase_valid for batch in batches])
        tokens = torch.stack([(batch.labels != IGNORED).sum() for batch in batches]).sum()
        counts = torch.stack([paraphrases.sum(), tokens]).float()
        rows, labels = ranks.mean(counts).clamp(min=1 / ranks.world()).unbind()
        return Whole(ids, torch.cat(exist) if exist else None, paraphrases, rows, labels)

    def across(self, features: Features, whole: Whole) -> Losses:
        """NegCLIP's contrast and the alignment: this rank's features against those of all ranks."""
        text, image, scale, ids = features["text"], features["image"], self.scale(), whole.ids
        first = ranks.rank() * len(text)
        every_id = None if ids is None else ids.gathered()
        shared = None if ids is None or every_id is None else same(ids, every_id, first)
        every_text, every_image = ranks.gather(text), ranks.gather(image)
        negatives = valid = None
        if "negatives" in features:
            negatives = ranks.gather(features["negatives"]).flatten(0, 1)
            if whole.negatives is not None:
                valid = ranks.gather(whole.negatives.int()).bool().flatten()
                if ids is not None and every_id is not None and every_id.negatives is not None:
                    valid = valid & true_negatives(ids, every_id, every_id.negatives.flatten())
        contrast = clip_contrast(
            text[None],
            image[None],
            every_text[None],
            every_image[None],
            scale,
            first,
            negatives,
            valid,
            shared,
        )
        losses = {"contrast": contrast}
        if "paraphrases" in features:
            losses["alignment"] = alignment(
                features["paraphrases"], every_text, scale, first, whole.paraphrases, whole.rows, shared
            )
        return losses

    def within(self, batch: SiblingBatch, features: Features, seen: Tensor, whole: Whole) -> Losses:
        """Each pair's label, written from its caption."""
        if self.decoder is None or self.memory is None:
            return {}
        logits = wide(self.decoder(self.memory(seen), batch.labels))
        with torch.autocast(logits.device.type, enabled=False):
            labels = batch.labels[batch.labels != IGNORED]
            return {"reconstruction": reconstruction(logits, labels, whole.tokens)}
