"""Detectors that are networks with weights in files: GroundingDINO's own, and checkpoints of transformers."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.detector import Detector, Settings
from macco.preprocess.detectors.locate import DetectorFiles, locate


class NetworkBackend:
    """What `tiny`, `groundingdino` and `transformers` stand for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def check(self, name: str) -> None:
        """See `Backend`."""
        self._files(name)

    def fingerprint(self, name: str) -> str:
        """Name and content hash of the weights, configuration and vocabulary."""
        return self._files(name).fingerprint()

    def load(self, name: str, device: str, settings: Settings) -> Detector:
        """Load a network onto a device. Raises UserError for one that is unfit, or a device that is not there."""
        from macco.pipeline.devices import choose_device

        files = self._files(name)
        where = choose_device(device, mps="asked")
        if files.family in PHRASEWISE:
            from macco.preprocess.detectors.phrasewise import PhraseDetector

            return PhraseDetector(PHRASEWISE[files.family](files, where), files.fingerprint(), settings)
        from macco.preprocess.detectors.batched import BatchedDetector, Network

        network: Network
        if files.backend == "groundingdino":
            from macco.preprocess.detectors.original import OriginalNetwork

            network = OriginalNetwork(files, where)
        else:
            from macco.preprocess.detectors.huggingface import HuggingFaceNetwork

            network = HuggingFaceNetwork(files.weights, where)
        return BatchedDetector(network, files.fingerprint(), settings)

    def _files(self, name: str) -> DetectorFiles:
        return locate(f"{self.kind}:{name}" if name else self.kind)


def _network(name: str, minimum: str = "") -> Callable[[DetectorFiles, Any], Any]:
    """What loads a class MODULE.CLASS of this package. minimum: the first transformers that has its model."""

    def load(files: DetectorFiles, device: Any) -> Any:
        module, _, kind = name.rpartition(".")
        try:
            made = import_module(f"macco.preprocess.detectors.{module}")
        except ImportError as error:
            raise UserError(
                f"{files.weights} needs transformers {minimum} or later, this is {version('transformers')}: "
                "pip install -U transformers"
            ) from error
        return getattr(made, kind)(files.weights, device)

    return load


# Models whose phrases are no prompt of one text, by the model_type of their config.json.
PHRASEWISE = {
    "owlv2": _network("owlv2.Owlv2Network"),
    "omdet-turbo": _network("omdet.OmDetNetwork"),
    "sam3": _network("sam3.Sam3Network", "5.0"),
    "sam3_video": _network("sam3.Sam3Network", "5.0"),
    "florence2": _network("florence2.Florence2Network"),
}
