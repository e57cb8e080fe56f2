"""The settings of CS-CLIP."""

from dataclasses import dataclass
from typing import ClassVar

from macco.train.config import Count, ObjectiveSettings, Positive, Weight


@dataclass(frozen=True, kw_only=True)
class CsclipConfig(ObjectiveSettings):
    """The paper's settings, but that its foils are a language model's, and these are made by rule."""

    group: ClassVar[str] = "csclip"

    units: Weight = 0.5  # of the contrast of units; 0 turns it off and skips its work
    slots: Positive = 2  # units of a caption in each batch
    negatives: Count = 5  # kinds of macco-train negatives, of which a caption's foil is drawn
    # Whether equal units of two images, other captions of an image and equal ones are wrong answers, as in the
    # public code.
    duplicate_negatives: bool = False
    # The public code's way with what does not exist: a caption or unit without a foil is left out of the contrast,
    # while what stands for a caption's foil is a candidate; without two entities in any caption no unit counts.
    reference: bool = False

    @property
    def hard_negatives(self) -> int:
        return self.negatives

    @property
    def reads_units(self) -> bool:
        return self.units > 0


SETTINGS = CsclipConfig
