"""What a detector is, whichever network it has."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


# What detectors count, by these names in the records of shards: of the distinct phrases of each image
ASKED: Final = "phrases asked"
CUT: Final = "phrases cut: more tokens than the detector holds"
WORDLESS: Final = "phrases without a word"
UNASKED: Final = "boxes of phrases that were not asked: left out"
OUTSIDE: Final = "boxes beyond their image: left out"
NEEDED: Final = ("fingerprint", "max_side", "counts", "detect")  # of a `Detector`, whoever wrote it


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
    max_side: int  # pixels; a longer image is made smaller before it is looked at; 0: no image is looked at
    counts: Counter[str]  # what was asked, and what could not be; whoever reads it empties it

    def detect(
        self, images: "Sequence[NDArray[np.uint8] | Image.Image]", phrases: Sequence[Sequence[str]]
    ) -> list[Detections]:
        """Boxes of `phrases[i]` in `images[i]` (RGB; arrays are height x width x 3)."""


@runtime_checkable
class Lookup(Protocol):
    """What knows boxes by the name of an image, and needs no pixels."""

    def look_up(
        self, shard: str, names: Sequence[Sequence[str]], phrases: Sequence[Sequence[str]]
    ) -> list[Detections]:
        """Boxes of `phrases[i]` in the image of a shard that is called any of `names[i]`, the likeliest first."""


def held(found: Detections, asked: int, counts: Counter[str]) -> Detections:
    """The boxes of an image that can be rows: of a phrase that was asked, and inside it. Others are counted."""
    known = (found.phrase >= 0) & (found.phrase < asked)
    inside = ((found.boxes >= -1e-3) & (found.boxes <= 1 + 1e-3)).all(1) & np.isfinite(found.scores)
    good = known & inside
    if good.all():
        return found
    counts[UNASKED] += int((~known).sum())
    counts[OUTSIDE] += int((known & ~inside).sum())
    return Detections(found.phrase[good], found.boxes[good], found.scores[good])


def gathered(slot_of: NDArray[np.int64], parts: list[NDArray[np.float32]]) -> Detections:
    """Rows of distinct phrases (slot, x0, y0, x1, y1, score) -> rows of the phrases as they were given."""
    rows = np.concatenate([np.empty((0, 6), np.float32), *parts])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]  # several prompts interleave their slots
    starts = np.searchsorted(rows[:, 0], slot_of, "left")
    counts = np.searchsorted(rows[:, 0], slot_of, "right") - starts
    phrase = np.repeat(np.arange(len(slot_of), dtype=np.int32), counts)
    place = np.arange(len(phrase)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    rows = rows[place]
    return Detections(phrase, rows[:, 1:5], rows[:, 5])
