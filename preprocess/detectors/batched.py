"""Detection in batches, for any network of the GroundingDINO family."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from macco.preprocess.detectors.canvas import ImageLike, ImageRule, image_size, stack
from macco.preprocess.detectors.detector import ASKED, CUT, WORDLESS, Detections, Settings, gathered
from macco.preprocess.detectors.prompts import Packed, Packer, Prompt, PromptBatch, phrase_scores, select


class Network(Protocol):
    """A loaded model, on its device."""

    packer: Packer
    rule: ImageRule
    num_queries: int
    device: torch.device

    def __call__(self, pixels: Tensor, mask: Tensor, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Normalised pixels [B, 3, H, W], mask [B, H, W] true on the image.

        Returns logits [B, queries, tokens] and boxes [B, queries, 4] as cx, cy, w, h in 0..1 of the image.
        """


class BatchedDetector:
    """A `Detector`: packs phrases, sorts images by canvas, asks the network, keeps the best boxes."""

    def __init__(self, network: Network, fingerprint: str, settings: Settings) -> None:
        self.network = network
        self.fingerprint = fingerprint
        self.max_side = network.rule.longest
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.passes = 0  # (image, prompt) pairs that the network has seen

    @torch.inference_mode()
    def detect(self, images: Sequence[ImageLike], phrases: Sequence[Sequence[str]]) -> list[Detections]:
        """Boxes of each image's phrases, ordered by phrase and falling score.

        Images are RGB. A phrase that is given twice gets its boxes twice; one without a word gets none.
        """
        if len(images) != len(phrases):
            raise ValueError(f"{len(images)} images with {len(phrases)} lists of phrases")
        packed = self.network.packer(phrases)
        for of_image in packed:
            self.counts[ASKED] += sum(len(prompt.slots) for prompt in of_image.prompts)
            self.counts[CUT] += of_image.cut
            self.counts[WORDLESS] += int((of_image.slot_of < 0).sum())
        found: list[list[NDArray[np.float32]]] = [[] for _ in images]
        for canvas, sizes, batch in self._batches(images, packed):
            pixels, mask = stack([images[i] for i, _ in batch], sizes, canvas)
            rows = self._ask(pixels, mask, [prompt for _, prompt in batch])
            bounds = np.searchsorted(rows[:, 0], np.arange(len(batch) + 1))
            for (image, prompt), start, end in zip(batch, bounds[:-1], bounds[1:], strict=True):
                mine = rows[start:end, 1:].copy()  # k, x0, y0, x1, y1, score
                mine[:, 0] = np.take(prompt.slots, mine[:, 0].astype(np.int64))
                found[image].append(mine)
        return [gathered(of_image.slot_of, rows) for of_image, rows in zip(packed, found, strict=True)]

    def _ask(self, pixels: Tensor, mask: Tensor, prompts: list[Prompt]) -> NDArray[np.float32]:
        network, settings = self.network, self.settings
        asked = network.packer.collate(prompts).to(network.device)
        pixels, mask = pixels.to(network.device), mask.to(network.device)
        autocast = torch.autocast(network.device.type, torch.bfloat16, enabled=settings.dtype == "bf16")
        with autocast:
            logits, boxes = network(network.rule.normalize(pixels, mask), mask, asked)
        self.passes += len(prompts)
        rows = select(
            phrase_scores(logits, asked.phrase_tokens),
            boxes,
            threshold=settings.box_threshold,
            nms_iou=settings.nms_iou,
            top=settings.max_boxes_per_phrase,
        )
        return rows.cpu().numpy()

    def _batches(
        self, images: Sequence[ImageLike], packed: Sequence[Packed]
    ) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]], list[tuple[int, Prompt]]]]:
        """(canvas, resized sizes, (image, prompt) pairs), by canvas and then in the order of the input."""
        rule = self.network.rule
        sizes = [rule.size(*image_size(image)) for image in images]
        by_canvas: dict[tuple[int, int], list[tuple[int, Prompt]]] = {}
        for image, (size, of_image) in enumerate(zip(sizes, packed, strict=True)):
            pairs = by_canvas.setdefault(rule.canvas(*size, self.network.num_queries), [])
            pairs += [(image, prompt) for prompt in of_image.prompts]
        for canvas, pairs in sorted(by_canvas.items(), key=lambda item: item[0]):
            for start in range(0, len(pairs), self.settings.batch_size):
                batch = pairs[start : start + self.settings.batch_size]
                yield canvas, [sizes[image] for image, _ in batch], batch
