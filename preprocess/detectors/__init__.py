"""Detectors: phrases of an image in, boxes out.

A detector is named by a spec:

- `tiny`: the small model inside this package, for the demo corpus
- `none`: nothing is looked for
- `boxes:FILE`: boxes made elsewhere, Parquet or COCO JSON, by image and phrase
- `groundingdino:swint`, `groundingdino:swinb`: the official weights, run by groundingdino-py
- `groundingdino:FILE.pth`, `groundingdino:FILE.pth@CONFIG.py`: other weights of that kind
- `transformers:NAME_OR_DIR`: a checkpoint of grounding-dino, mm-grounding-dino (LLMDet is one), owlv2, omdet-turbo,
  sam3 or florence2
- `NAME`, `NAME:ARGUMENT`: what another package adds, by an entry point in the group `macco.detectors`

Nothing is downloaded: a model that is not here raises a UserError with the command that gets it.
"""

from typing import Any

from macco.preprocess.detectors.backends import backend
from macco.preprocess.detectors.detector import NEEDED, Detections, Detector, Lookup, Settings
from macco.preprocess.plugins import having

__all__ = [
    "Detections",
    "Detector",
    "Lookup",
    "Settings",
    "check_detector",
    "detector_fingerprint",
    "load_detector",
]


def check_detector(spec: str) -> None:
    """Raise UserError unless the files that `spec` names are here. Loads no model."""
    kind, name = backend(spec)
    kind.check(name)


def detector_fingerprint(spec: str) -> str:
    """What says that two detectors give the same boxes: of a network, a hash of its weights and settings."""
    kind, name = backend(spec)
    return kind.fingerprint(name)


def load_detector(spec: str = "tiny", *, device: str = "auto", **settings: Any) -> Detector:
    """Load a detector onto a device; `settings` are the fields of `Settings`.

    `device` is "auto" (CUDA where there is one, else CPU) or a torch device. Raises UserError for a
    missing or unfit model, or a device that is not there.
    """
    kind, name = backend(spec)
    found: Detector = having(
        kind.load(name, device, Settings(**settings)), NEEDED, f"detector {spec}, as it is loaded,"
    )
    return found
