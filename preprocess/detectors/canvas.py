"""Images onto canvases: the checkpoint's resize rule, then a padded size that depends on the image alone.

Padding changes a detector's answer. If a batch were padded to its largest image, a box would depend on
its neighbours; with canvases fixed by each image's own size, an image gets the same boxes in any company.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

ImageLike = NDArray[np.uint8] | Image.Image
STRIDE = 32  # of the coarsest backbone stage: canvases are multiples of it
FINEST = 8  # pixels per token of the finest level


@dataclass(frozen=True)
class ImageRule:
    """How a checkpoint wants its images: sides in pixels, mean and std of 0..1 values."""

    shortest: int = 800
    longest: int = 1333
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Size after resizing: the short side as wished, unless the long one would pass its limit."""
        short, long = min(height, width), max(height, width)
        target: float = self.shortest
        side = self.shortest
        if long / short * self.shortest > self.longest:
            target = self.longest * short / long
            side = max(1, round(target))
        if short == side:
            return height, width
        other = int(target * long / short)
        return (other, side) if width < height else (side, other)

    def canvas(self, height: int, width: int, queries: int) -> tuple[int, int]:
        """Padded size of a resized image: sides rounded up to a fifth of the short side (160 at 800).

        A model chooses `queries` of the image's tokens, so that a canvas must have as many.
        """
        step = max(STRIDE, self.shortest // 5 // STRIDE * STRIDE)
        canvas_height, canvas_width = -(-height // step) * step, -(-width // step) * step
        while (canvas_height // FINEST) * (canvas_width // FINEST) < queries:
            canvas_height, canvas_width = canvas_height + step, canvas_width + step
        return canvas_height, canvas_width

    def normalize(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32, zero where `mask` [B, H, W] is false."""
        mean = torch.tensor(self.mean, device=pixels.device)[:, None, None]
        std = torch.tensor(self.std, device=pixels.device)[:, None, None]
        return (pixels.float() / 255).sub_(mean).div_(std).mul_(mask[:, None])


def image_size(image: ImageLike) -> tuple[int, int]:
    """Height and width."""
    return (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]


def stack(
    images: Sequence[ImageLike], sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Resize each image to its size and put it into the upper left corner of a canvas.

    Returns uint8 [B, 3, H, W] and a bool mask [B, H, W], true on the image.
    """
    pixels = torch.zeros(len(images), 3, *canvas, dtype=torch.uint8)
    mask = torch.zeros(len(images), *canvas, dtype=torch.bool)
    for row, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
        pixels[row, :, :height, :width] = _resized(image, height, width)
        mask[row, :height, :width] = True
    return pixels, mask


def _resized(image: ImageLike, height: int, width: int) -> Tensor:
    if isinstance(image, Image.Image):
        image = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    array = image if image.flags.writeable else image.copy()  # torch warns of read-only memory
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    if tensor.shape[1:] == (height, width):
        return tensor
    resized: Tensor = tv.resize(tensor, [height, width], antialias=True)
    return resized
