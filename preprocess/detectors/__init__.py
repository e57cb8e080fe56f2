"""Detectors: phrases of an image in, boxes out.

A detector is named by a spec:

- `tiny`: the small model inside this package, for the demo corpus
- `groundingdino:swint`, `groundingdino:swinb`: the official weights, run by groundingdino-py
- `groundingdino:FILE.pth`, `groundingdino:FILE.pth@CONFIG.py`: other weights of that kind
- `transformers:NAME_OR_DIR`: a grounding-dino or mm-grounding-dino checkpoint (LLMDet is one)

Nothing is downloaded: a model that is not here raises a UserError with the command that gets it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from macco.preprocess.detectors.locate import locate

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


def check_detector(spec: str) -> None:
    """Raise UserError unless the files that `spec` names are here. Loads no model."""
    locate(spec)


def detector_fingerprint(spec: str) -> str:
    """Name and content hash of the weights, configuration and vocabulary that `spec` names."""
    return locate(spec).fingerprint()


def load_detector(spec: str = "tiny", *, device: str = "auto", **settings: Any) -> Detector:
    """Load a detector onto a device; `settings` are the fields of `Settings`.

    `device` is "auto" (CUDA where there is one, else CPU) or a torch device. Raises UserError for a
    missing or unfit model, or a device that is not there.
    """
    from macco.preprocess.detectors.batched import BatchedDetector, Network, find_device

    files = locate(spec)
    where = find_device(device)
    network: Network
    if files.backend == "groundingdino":
        from macco.preprocess.detectors.original import OriginalNetwork

        network = OriginalNetwork(files, where)
    else:
        from macco.preprocess.detectors.huggingface import HuggingFaceNetwork

        network = HuggingFaceNetwork(files.weights, where)
    return BatchedDetector(network, files.fingerprint(), Settings(**settings))
