"""CS-CLIP: a CLIP under a contrast of captions with foils, and one of their units, each with a foil of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.train.clip.towers import wide
from macco.train.distributed import ranks
from macco.train.losses.pairs import PairIds, same, true_negatives
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.csclip.batches import UnitBatch
from macco.train.objectives.csclip.losses import Pairing, foil_contrast, true_of
from macco.train.objectives.csclip.settings import CsclipConfig
from macco.train.objectives.pairwise import PairModel
from macco.train.objectives.together import pair_ids


@dataclass(frozen=True)
class Whole:
    """This rank's pairs of the step: slot 0 is the caption, further ones its units."""

    ids: PairIds | None
    valid: Tensor  # [b, 1 + N] bool: which texts exist
    foils: Tensor  # [b, 1 + N] bool: which of their foils exist
    units: Tensor  # [b, N] int64: equal where units are
    entities: Tensor  # [b] int64


class CsclipModel(PairModel[UnitBatch, None, Whole]):
    """An open_clip model under the CS-CLIP objective; it has no parameters of its own, and its scale is not clamped."""

    def __init__(self, clip: nn.Module, config: CsclipConfig) -> None:
        super().__init__(clip)
        self.config = config
        self.weights = {"full": 1.0, "units": config.units}

    def after_step(self) -> None:
        pass

    def encode(self, batch: UnitBatch) -> tuple[Features, None]:
        assert batch.negatives is not None
        features = {"image": F.normalize(wide(self.encoded_images(batch).cls), dim=-1)}
        features["text"], foils = self.encoded_texts(batch.tokens, batch.negatives[:, 0])
        features["negatives"] = foils[:, None]
        if self.config.units:
            # Two passes: units are a third as long as captions.
            both = self.encoded_texts(batch.units.flatten(0, 1), batch.unit_foils.flatten(0, 1))
            features["units"], features["unit_foils"] = (x.view(*batch.units.shape[:2], -1) for x in both)
        return features, None

    def whole(self, batches: Sequence[UnitBatch]) -> Whole:
        ids = None if self.config.duplicate_negatives else pair_ids(batches)
        units, foils, numbers, entities = (
            torch.cat([getattr(batch, name) for batch in batches])
            for name in ("unit_valid", "foil_valid", "unit_ids", "entities")
        )
        made = torch.cat([batch.negative_valid for batch in batches if batch.negative_valid is not None])
        valid = F.pad(units, (1, 0), value=True)
        return Whole(ids, valid, torch.cat([made, foils], 1), numbers, entities)

    def across(self, features: Features, whole: Whole) -> Losses:
        image, text, c = features["image"], features["text"], self.config
        scale, bias = self.scale(), self.bias()
        first, ids = ranks.rank() * len(image), whole.ids
        every_id = None if ids is None else ids.gathered()
        shared = torch.zeros(len(image), len(image) * ranks.world(), dtype=torch.bool, device=image.device)
        if ids is not None and every_id is not None:
            shared = same(ids, every_id, first)
        # Which texts are anchors and candidates: all that exist, or in the public code all that have a foil.
        counts = whole.valid & whole.foils if c.reference else whole.valid
        every, every_image = ranks.gather(counts.int()).bool(), ranks.gather(image)
        rows = every.sum(0).clamp(min=1) / ranks.world()

        def pairing(own: Tensor, slot: int, texts: Tensor, images: Tensor) -> Pairing:
            there = every[:, slot]
            return Pairing(image, own, every_image, ranks.gather(own), first, there & ~texts, there & ~images)

        made = ranks.gather(whole.foils[:, 0].int()).bool() | c.reference
        foils = made.expand(len(image), -1)
        if ids is not None and every_id is not None and every_id.negatives is not None and not c.reference:
            foils = foils & true_negatives(ids, every_id, every_id.negatives[:, 0])
        full = pairing(text, 0, shared, shared)
        losses = {
            "full": foil_contrast(
                full, scale, counts[:, 0], rows[0], ranks.gather(features["negatives"])[:, 0], foils, bias
            )
        }
        if not c.units:
            return losses
        numbers, found = ranks.gather(whole.units), []
        for slot in range(c.slots):
            texts, images = shared, shared
            if ids is not None:
                texts = self._others(shared | true_of(whole.units, numbers[:, slot]), first)
                images = self._others(shared | true_of(numbers, whole.units[:, slot]).T, first)
            pairs = pairing(features["units"][:, slot].contiguous(), slot + 1, texts, images)
            own = features["unit_foils"][:, slot, None]
            there = whole.foils[:, slot + 1, None]
            found.append(foil_contrast(pairs, scale, counts[:, slot + 1], rows[slot + 1], own, there, bias))
        losses["units"] = torch.stack(found).mean()
        if c.reference:
            losses["units"] = losses["units"] * (ranks.gather(whole.entities) > 1).any()
        return losses

    def _others(self, found: Tensor, first: int) -> Tensor:
        """Without each pair's own place."""
        rows = torch.arange(len(found), device=found.device)
        found[rows, first + rows] = False
        return found
