"""The settings of C2LIP."""

from dataclasses import dataclass
from typing import ClassVar

from macco.train.config import Number, ObjectiveSettings, Weight


@dataclass(frozen=True, kw_only=True)
class C2lipConfig(ObjectiveSettings):
    """Weights of the losses beside the sigmoid contrast (0 turns one off and skips its work); the paper's."""

    group: ClassVar[str] = "c2lip"

    npc: Weight = 1.0  # phrases against images
    xac: Weight = 0.01  # phrases against the patches that they attend to, pooled
    bias: Number = -10.0  # what a CLIP's new bias of the sigmoid starts from; SigLIP's own is trained on
    boxes: bool = False  # pool within the phrase's boxes, where the image is its own; not the paper's
    # Whether equal phrases of two images, other captions of an image and equal ones are wrong answers, as in the
    # public code.
    duplicate_negatives: bool = False


SETTINGS = C2lipConfig
