"""What shapes the rows of a store: one dataclass, from which every worker builds the same extractor."""

from dataclasses import asdict, dataclass
from typing import Any

from macco.pipeline.errors import UserError

DEFAULT_THRESHOLD = 0.35  # of box scores, where a command shows or counts boxes: GroundingDINO's own default


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Settings of one extraction. Small and picklable: it travels to every worker.

    Fields up to `max_pixels` shape the rows and are compared when a store is extended; the rest only
    say where and how fast the work is done.
    """

    parser: str = "en_caption"
    rules: str = "repaired"  # repaired | original
    detector: str = "tiny"
    dtype: str = "fp32"  # fp32 | bf16
    box_threshold: float = 0.1  # boxes down to this score are kept; choose a higher one later, in SQL
    nms_iou: float = 0.5
    max_boxes: int = 20  # per phrase of an image
    max_caption_chars: int = 1000
    max_pixels: int = 100_000_000

    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps
    batch_size: int = 16  # (image, prompt) pairs that the detector sees at once

    def settings(self) -> dict[str, Any]:
        """What store.json records: the fields that shape rows, and the fingerprints of both models."""
        from macco.preprocess.detectors import detector_fingerprint
        from macco.preprocess.graph.language import pipeline_fingerprint

        fields = asdict(self)
        for name in ("device", "batch_size"):
            del fields[name]
        fields["parser_fingerprint"] = pipeline_fingerprint(self.parser)
        fields["detector_fingerprint"] = detector_fingerprint(self.detector)
        return fields

    @classmethod
    def from_settings(cls, settings: dict[str, Any], *, device: str, batch_size: int) -> "ExtractConfig":
        """The configuration that made a store, to go on with it."""
        names = {name for name in settings if not name.endswith("_fingerprint")}
        if "imported" in names:
            raise UserError("this store was imported, not extracted: import it again instead")
        return cls(**{name: settings[name] for name in names}, device=device, batch_size=batch_size)

    def check(self) -> None:
        """Raise UserError for a missing model or an impossible value, before anything is written."""
        from macco.preprocess.detectors import check_detector
        from macco.preprocess.graph.language import check_pipeline

        if self.rules not in ("repaired", "original"):
            raise UserError(f"--rules is {self.rules!r}: choose repaired or original")
        if self.dtype not in ("fp32", "bf16"):
            raise UserError(f"--dtype is {self.dtype!r}: choose fp32 or bf16")
        for name in ("box_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}: it lies between 0 and 1"
                )
        for name in ("max_boxes", "max_caption_chars", "max_pixels", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}: it is at least 1")
        check_pipeline(self.parser)
        check_detector(self.detector)
