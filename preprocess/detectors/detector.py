"""What a detector is, whichever network it has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Detections:
    """Boxes of one image's phrases, ordered by phrase and falling score."""

    phrase: NDArray[np.int32]  # [N] place in the image's list of phrases
    boxes: NDArray[np.float32]  # [N, 4] x0, y0, x1, y1 in 0..1 of the image
    scores: NDArray[np.float32]  # [N] mean probability of the phrase's tokens


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a detector keeps, and how it computes."""

    dtype: str = "fp32"  # fp32 | bf16
    batch_size: int = 16  # (image, prompt) pairs per pass
    box_threshold: float = 0.1
    nms_iou: float = 0.5  # of two boxes of one phrase that overlap more, the worse is dropped
    max_boxes_per_phrase: int = 20


class Detector(Protocol):
    """A loaded detector."""

    fingerprint: str
    max_side: int  # pixels; a longer image is made smaller before it is looked at

    def detect(
        self, images: "Sequence[NDArray[np.uint8] | Image.Image]", phrases: Sequence[Sequence[str]]
    ) -> list[Detections]:
        """Boxes of `phrases[i]` in `images[i]` (RGB; arrays are height x width x 3)."""
