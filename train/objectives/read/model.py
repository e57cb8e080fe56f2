"""READ-CLIP: a CLIP under NegCLIP's contrast, an alignment of paraphrases, and captions written from captions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import wide
from macco.train.distributed import ranks
from macco.train.losses.pairs import PairIds, same
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.pairwise import PairModel, existing_negatives
from macco.train.objectives.read.batches import SiblingBatch
from macco.train.objectives.read.decoder import load_decoder
from macco.train.objectives.read.losses import alignment, reconstruction
from macco.train.objectives.read.settings import ReadConfig
from macco.train.objectives.together import pair_ids


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
        paraphrases = torch.cat([batch.paraphrase_valid for batch in batches])
        tokens = sum(len(batch.label_slots.sample) for batch in batches)
        counts = torch.stack([paraphrases.sum(), paraphrases.new_full((), tokens, dtype=torch.int64)]).float()
        rows, labels = ranks.mean(counts).clamp(min=1 / ranks.world()).unbind()
        return Whole(ids, existing_negatives(batches), paraphrases, rows, labels)

    def across(self, features: Features, whole: Whole) -> Losses:
        """NegCLIP's contrast and the alignment: this rank's features against those of all ranks."""
        losses = {"contrast": self.hard_contrast(features, whole.ids, whole.negatives)}
        if "paraphrases" in features:
            text, ids = features["text"], whole.ids
            first = ranks.rank() * len(text)
            shared = None if ids is None else same(ids, ids.gathered(), first)
            losses["alignment"] = alignment(
                features["paraphrases"],
                ranks.gather(text),
                self.scale(),
                first,
                whole.paraphrases,
                whole.rows,
                shared,
            )
        return losses

    def within(self, batch: SiblingBatch, features: Features, seen: Tensor, whole: Whole) -> Losses:
        """Each pair's label, written from its caption."""
        if self.decoder is None or self.memory is None:
            return {}
        slots = batch.label_slots
        logits = wide(self.decoder(self.memory(seen), batch.labels, slots))
        with torch.autocast(logits.device.type, enabled=False):
            labels = batch.labels[slots.sample, slots.position]
            return {"reconstruction": reconstruction(logits, labels, whole.tokens)}
