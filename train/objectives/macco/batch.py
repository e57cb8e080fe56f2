"""A batch with masks, as the model takes it: apart from what reads it, which a machine that only computes lacks."""

from dataclasses import dataclass, field

from torch import Tensor

from macco.train.data.batch import Batch
from macco.train.data.slots import Slots


@dataclass(frozen=True, kw_only=True)
class MaskedBatch(Batch):
    """B image-caption pairs with their masks; P is the patch count."""

    text_mask: Tensor  # [B, L] bool: tokens to mask
    patch_mask: Tensor  # [B, P] bool: patches to mask, row by row, without CLS
    text_slots: Slots = field(default=None)  # type: ignore[assignment]  # made from text_mask where not given
    patch_slots: Slots = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_slots is None:
            object.__setattr__(self, "text_slots", Slots.of(self.text_mask))
        if self.patch_slots is None:
            object.__setattr__(self, "patch_slots", Slots.of(self.patch_mask))
