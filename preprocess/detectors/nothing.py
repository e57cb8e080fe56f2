"""No detector: captions are read, and nothing is looked for. Of images the headers are read, as in `import`."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.detector import Detections, Detector, Settings

if TYPE_CHECKING:  # it brings PyTorch, of which nothing has no need
    from macco.preprocess.detectors.canvas import ImageLike

SIDE = 128  # pixels: enough for the hash of an image, and quick to decode, where nothing else says a size


class NoDetector:
    """A `Detector` that finds no box of anything."""

    fingerprint = "none"
    max_side = 0

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def detect(self, images: "Sequence[ImageLike]", phrases: Sequence[Sequence[str]]) -> list[Detections]:
        """See `Detector`."""
        none = Detections(np.empty(0, np.int32), np.empty((0, 4), np.float32), np.empty(0, np.float32))
        return [none] * len(images)


class NoBackend:
    """What `none` stands for."""

    def check(self, name: str) -> None:
        """Raise UserError for a name: there is one nothing."""
        if name:
            raise UserError(f"detector none:{name}: none stands alone")

    def fingerprint(self, name: str) -> str:
        """The same always."""
        return NoDetector.fingerprint

    def load(self, name: str, device: str, settings: Settings) -> Detector:
        """The detector."""
        return NoDetector()
