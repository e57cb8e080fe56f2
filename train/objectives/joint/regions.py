"""Region features: an image tower's patch features, pooled by the boxes of the store."""

import torch
from torch import Tensor

GEOMETRY = 7  # x0, y0, x1, y1, width, height, area


def geometry(boxes: Tensor) -> Tensor:
    """Boxes [B, V, 4], x0, y0, x1, y1 in 0..1 of the image, to what a joint encoder is told of them, [B, V, 7]."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return torch.cat([boxes, torch.stack([width, height, width * height], -1)], -1)


def pool_regions(patches: Tensor, boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of the patches under each box, by how much of each patch the box covers.

    patches: [B, P, D], row by row (a tower's tokens without its first `prefix`); grid: rows, columns, P in all;
    boxes: [B, V, 4], x0, y0, x1, y1 in 0..1 of what the tower saw: where that was a crop, of the crop. A box
    without area, or outside, has the features of the patch nearest to its centre. Returns [B, V, D].
    """
    rows, columns = grid
    down, along = (boxes[..., 1], boxes[..., 3], rows), (boxes[..., 0], boxes[..., 2], columns)
    cover = _covered(*down)[..., :, None] * _covered(*along)[..., None, :]
    nearest = _nearest(*down)[..., :, None] * _nearest(*along)[..., None, :]
    area = cover.sum((-2, -1), keepdim=True)
    share = torch.where(area > 0, cover / area.masked_fill(area == 0, 1), nearest)
    return share.flatten(2).to(patches.dtype) @ patches


def _covered(low: Tensor, high: Tensor, count: int) -> Tensor:
    """How much of each of `count` cells of 0..1 lies between low and high [B, V]: [B, V, count] in 0..1."""
    edges = torch.arange(count, device=low.device)
    return ((high * count)[..., None] - edges).clamp(0, 1) - ((low * count)[..., None] - edges).clamp(0, 1)


def _nearest(low: Tensor, high: Tensor, count: int) -> Tensor:
    cell = ((low + high) / 2 * count).floor().long().clamp(0, count - 1)
    return torch.nn.functional.one_hot(cell, count).to(low.dtype)
