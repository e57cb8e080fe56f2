"""What the first word of a spec stands for: the detectors of this package, and those that others add."""

from typing import Final, Protocol

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.detector import Detector, Settings
from macco.preprocess.plugins import DETECTORS, made, plugins

KNOWN: Final = "tiny, none, boxes:FILE, groundingdino:swint|swinb|FILE.pth, transformers:NAME_OR_DIR"


class Backend(Protocol):
    """Detectors of one kind. `name` is what follows the colon, empty where there is none."""

    def check(self, name: str) -> None:
        """Raise UserError unless the files that `name` names are here. Loads no model."""

    def fingerprint(self, name: str) -> str:
        """What says that two detectors give the same boxes: a hash of weights and settings, or a version."""

    def load(self, name: str, device: str, settings: Settings) -> Detector:
        """Load a detector. `device` is "auto" or a torch device."""


def backend(spec: str) -> tuple[Backend, str]:
    """The kind of detector that a spec names, and the rest of it. Raises UserError where there is none."""
    kind, _, name = spec.partition(":")
    if kind in ("tiny", "groundingdino", "transformers"):
        from macco.preprocess.detectors.networks import NetworkBackend

        return NetworkBackend(kind), name
    if kind == "none":
        from macco.preprocess.detectors.nothing import NoBackend

        return NoBackend(), name
    if kind == "boxes":
        from macco.preprocess.detectors.box_file import BoxFileBackend

        return BoxFileBackend(), name
    added = plugins(DETECTORS)
    if kind not in added:
        more = f", {', '.join(sorted(added))}" if added else ""
        raise UserError(f"detector {spec!r} is unknown: choose {KNOWN}{more}")
    found: Backend = made(added[kind], "detector")
    return found, name
