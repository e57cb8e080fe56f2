"""DeGLA: a CLIP under NegCLIP's contrast, with hard negatives grounded in images and in a teacher's captions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import wide
from macco.train.data.batch import Batch
from macco.train.losses.pairs import PairIds
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.degla.losses import image_grounded, text_grounded
from macco.train.objectives.degla.settings import DeglaConfig
from macco.train.objectives.pairwise import (
    PairModel,
    existing_negatives,
    rows_with_negatives,
)
from macco.train.objectives.together import pair_ids


@dataclass(frozen=True)
class Whole:
    """What the losses know of the whole step."""

    ids: PairIds | None  # of this rank's pairs
    negatives: Tensor | None  # [b, K] bool: which exist
    rows: Tensor  # pairs with a hard negative, of all ranks, divided by the ranks


class DeglaModel(PairModel[Batch, None, Whole]):
    """An open_clip model under the DeGLA objective; it has no parameters of its own."""

    def __init__(self, clip: nn.Module, config: DeglaConfig) -> None:
        super().__init__(clip)
        self.config = config
        self.weights = {
            "contrast": 1.0, "image_grounded": config.image_grounded, "text_grounded": config.text_grounded,
        }  # fmt: skip
        self.after_step()

    def encode(self, batch: Batch) -> tuple[Features, None]:
        kinds = self.config.negatives
        if batch.negatives is None or batch.negatives.shape[1] != kinds:
            raise UserError(f"batches hold no {kinds} hard negatives per caption")
        text, made = self.encoded_texts(batch.tokens, batch.negatives.flatten(0, 1))
        image = F.normalize(wide(self.encoded_images(batch).cls), dim=-1)
        return {"image": image, "text": text, "negatives": made.view(len(batch), kinds, -1)}, None

    def whole(self, batches: Sequence[Batch]) -> Whole:
        ids = None if self.config.duplicate_negatives else pair_ids(batches)
        return Whole(ids, existing_negatives(batches), rows_with_negatives(batches))

    def across(self, features: Features, whole: Whole) -> Losses:
        return {"contrast": self.hard_contrast(features, whole.ids, whole.negatives)}

    def within(self, batch: Batch, features: Features, seen: None, whole: Whole) -> Losses:
        if not self.config.image_grounded or batch.negative_valid is None:
            return {}
        with torch.autocast(batch.tokens.device.type, enabled=False):
            texts = torch.cat([features["text"][:, None], features["negatives"]], 1)
            there = F.pad(batch.negative_valid, (1, 0), value=True)
            loss = image_grounded(features["image"], texts, there, whole.rows, self.scale())
        return {"image_grounded": loss}

    def under_teacher(
        self,
        image: Tensor,
        texts: Tensor,
        teacher_image: Tensor,
        teacher_texts: Tensor,
        there: Tensor,
        whole: Whole,
    ) -> Losses:
        c, losses = (
            self.config,
            super().under_teacher(image, texts, teacher_image, teacher_texts, there, whole),
        )
        if c.text_grounded:
            rule = {"reference": c.reference}
            losses["text_grounded"] = text_grounded(texts, teacher_texts[:, 0], there, whole.rows, **rule)
        return losses
