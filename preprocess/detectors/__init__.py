"""Detectors: phrases of an image in, boxes out.

A detector is named by a spec:

- `tiny`: the small model inside this package, for the demo corpus
- `groundingdino:swint`, `groundingdino:swinb`: the official weights, run by groundingdino-py
- `groundingdino:FILE.pth`, `groundingdino:FILE.pth@CONFIG.py`: other weights of that kind
- `transformers:NAME_OR_DIR`: a grounding-dino or mm-grounding-dino checkpoint (LLMDet is one)

Nothing is downloaded: a model that is not here raises a UserError with the command that gets it.
"""

from typing import Any

from macco.preprocess.detectors.detector import Detections, Detector, Settings
from macco.preprocess.detectors.locate import locate

__all__ = ["Detections", "Detector", "Settings", "check_detector", "detector_fingerprint", "load_detector"]


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
    from macco.pipeline.devices import choose_device
    from macco.preprocess.detectors.batched import BatchedDetector, Network

    files = locate(spec)
    where = choose_device(device, mps="asked")
    network: Network
    if files.backend == "groundingdino":
        from macco.preprocess.detectors.original import OriginalNetwork

        network = OriginalNetwork(files, where)
    else:
        from macco.preprocess.detectors.huggingface import HuggingFaceNetwork

        network = HuggingFaceNetwork(files.weights, where)
    return BatchedDetector(network, files.fingerprint(), Settings(**settings))
