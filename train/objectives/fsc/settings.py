"""The settings of FSC-CLIP."""

from dataclasses import dataclass
from typing import ClassVar

from macco.train.config import Count, ObjectiveSettings, Share, Weight


@dataclass(frozen=True, kw_only=True)
class FscConfig(ObjectiveSettings):
    """Weights of the losses beside CLIP's contrast (0 turns one off and skips its work); the paper's for B/32."""

    group: ClassVar[str] = "fsc"

    global_weight: Weight = 0.5  # of hard negatives by pooled features
    local_weight: Weight = 0.2  # by tokens and the patches that they pick; the paper's B/16 has 0.5
    gamma: Weight = 2.0  # of the focal factor (1 - p)^gamma
    smoothing: Share = 0.02  # of the target, over the captions that there are
    negatives: Count = 4  # kinds of macco-train negatives, swaps first
    shuffle: bool = True  # one more: the caption's pairs of words in another order, drawn anew each time
    duplicate_negatives: bool = False  # other captions of an image, and equal ones, are wrong answers
    reference: bool = False  # the public code's numerics: an absent negative is a logit of 0

    @property
    def hard_negatives(self) -> int:
        return self.negatives

    @property
    def candidates(self) -> int:
        """K: hard negatives of each caption, as far as they exist."""
        return self.negatives + self.shuffle


SETTINGS = FscConfig
