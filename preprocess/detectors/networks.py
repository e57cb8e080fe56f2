"""Detectors that are networks with weights in files: GroundingDINO's own, and checkpoints of transformers."""

from typing import Any

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


def _owlv2(files: DetectorFiles, device: Any) -> Any:
    from macco.preprocess.detectors.owlv2 import Owlv2Network

    return Owlv2Network(files.weights, device)


# Models whose phrases are no prompt of one text, by the model_type of their config.json.
PHRASEWISE = {"owlv2": _owlv2}
