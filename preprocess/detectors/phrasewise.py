"""Detection by phrases of their own, for networks that see every image on one square: OWLv2, OmDet-Turbo, SAM 3,
Florence-2.

An image is encoded once, whatever number of phrases it is asked about. A square is filled from the image alone, so
that a batch changes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.canvas import ImageLike, image_size
from macco.preprocess.detectors.checkpoint import reading
from macco.preprocess.detectors.detector import ASKED, CUT, WORDLESS, Detections, Settings, gathered
from macco.preprocess.detectors.prompts import normalize, select


class PhraseNetwork(Protocol):
    """A loaded model, on its device."""

    device: torch.device
    squares: "Squares"
    phrases: "Phrases"

    def groups(self, phrases: Sequence[str]) -> list[list[int]]:
        """Which phrases of an image are asked together; each is in one group."""

    def encode(self, pixels: Tensor) -> Any:
        """Normalised pixels [B, 3, S, S] -> what `answer` needs of the images."""

    def answer(
        self, images: Any, rows: Sequence[int], phrases: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """Ask image rows[n] about phrases[n].

        Returns scores [N, K, Q] in 0..1, zero beyond a row's phrases, and boxes [N, Q, 4] as cx, cy, w, h in 0..1 of
        the square.
        """


class Squares:
    """How a checkpoint wants its images: by its own processor, one at a time."""

    def __init__(self, folder: Path, *, padded: bool) -> None:
        """padded: the image keeps its shape, in the upper left corner; else it is stretched."""
        with reading(folder, "preprocessor_config.json"):
            self.processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        size = dict(self.processor.size)
        if not size.get("height") or size.get("height") != size.get("width"):
            raise UserError(f"{folder}: the image size is {size}; a square is needed (height and width)")
        self.side, self.padded = int(size["height"]), padded

    def __call__(self, image: ImageLike) -> Tensor:
        """RGB -> [3, S, S]."""
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        made = self.processor(images=picture.convert("RGB"), return_tensors="pt")
        pixels: Tensor = made["pixel_values"][0]
        return pixels

    def scale(self, image: ImageLike) -> tuple[float, float]:
        """What a square's x and y are multiplied by to be those of the image."""
        height, width = image_size(image)
        return (max(height, width) / width, max(height, width) / height) if self.padded else (1.0, 1.0)


class Phrases:
    """Phrases as a checkpoint's tokenizer reads them, cut to the tokens that it can hold."""

    def __init__(self, folder: Path, limit: int, spared: str = "") -> None:
        """spared: what a phrase stands in, which has to fit as well."""
        with reading(folder, "tokenizer"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.limit = limit  # tokens, with those that begin and end a text
        self.room = limit - self.tokenizer.num_special_tokens_to_add()
        self.room -= self.length(spared) if spared else 0

    def length(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self.tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"][0])

    def shorten(self, text: str) -> str:
        """The text, or as much of it as fits, up to a blank where there is one."""
        encoded = self.tokenizer([text], add_special_tokens=False, verbose=False)
        if len(encoded["input_ids"][0]) <= self.room:
            return text
        end = encoded[0].offsets[self.room - 1][1]
        head = text[:end]
        if text[end : end + 1] not in ("", " ") and " " in head:
            head = head[: head.rindex(" ")]
        return head.rstrip()

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask [N, limit]."""
        made = self.tokenizer(
            list(texts), padding="max_length", max_length=self.limit, truncation=True, return_tensors="pt"
        )
        return made["input_ids"], made["attention_mask"]


class PhraseDetector:
    """A `Detector` over a `PhraseNetwork`."""

    def __init__(self, network: PhraseNetwork, fingerprint: str, settings: Settings) -> None:
        self.network = network
        self.fingerprint = fingerprint
        self.max_side = network.squares.side
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.passes = 0  # (image, group of phrases) pairs that the network has seen

    @torch.inference_mode()
    def detect(self, images: Sequence[ImageLike], phrases: Sequence[Sequence[str]]) -> list[Detections]:
        """See `Detector`."""
        asked = [self._slots(of_image) for of_image in phrases]
        found: list[list[Any]] = [[] for _ in images]
        wanted = [number for number, (_, texts) in enumerate(asked) if texts]
        size = self.settings.batch_size
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            self._batch([images[n] for n in batch], [asked[n][1] for n in batch], [found[n] for n in batch])
        return [gathered(slots, rows) for (slots, _), rows in zip(asked, found, strict=True)]

    def _slots(self, phrases: Sequence[str]) -> tuple[Any, list[str]]:
        """Which distinct text each phrase is (-1: none), and these texts."""
        places: dict[str, int] = {}
        short: dict[str, str] = {}
        for text in dict.fromkeys(map(normalize, phrases)):
            if text:
                short[text] = self.network.phrases.shorten(text)
                places.setdefault(short[text], len(places))
        self.counts[ASKED] += len(short)
        self.counts[CUT] += sum(text != cut for text, cut in short.items())
        slots = [places[short[text]] if text in short else -1 for text in map(normalize, phrases)]
        self.counts[WORDLESS] += slots.count(-1)
        return np.array(slots, np.int64), list(places)

    def _batch(self, images: list[ImageLike], texts: list[list[str]], found: list[list[Any]]) -> None:
        network, settings = self.network, self.settings
        pairs = [(n, group) for n, own in enumerate(texts) for group in network.groups(own)]
        with torch.autocast(network.device.type, torch.bfloat16, enabled=settings.dtype == "bf16"):
            encoded = network.encode(torch.stack([network.squares(one) for one in images]).to(network.device))
            for start in range(0, len(pairs), settings.batch_size):
                part = pairs[start : start + settings.batch_size]
                rows = [n for n, _ in part]
                scores, boxes = network.answer(encoded, rows, [[texts[n][k] for k in own] for n, own in part])
                self.passes += len(part)
                scale = torch.tensor([network.squares.scale(images[n]) * 2 for n in rows])
                kept = select(
                    scores.float(),
                    boxes.float() * scale[:, None].to(boxes.device),
                    threshold=settings.box_threshold,
                    nms_iou=settings.nms_iou,
                    top=settings.max_boxes_per_phrase,
                )
                for b, k, *row in kept.cpu().numpy():
                    n, group = part[int(b)]
                    found[n].append(np.array([[group[int(k)], *row]], np.float32))
