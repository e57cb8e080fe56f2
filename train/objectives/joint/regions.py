"""Regions: which boxes of the store an image has, and an image tower's patch features pooled by them."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from macco.train.data.masks import Crop

NEAR: Final = 0.9  # intersection over union from which two boxes are one region
Boxes = NDArray[np.float32]

GEOMETRY = 7  # x0, y0, x1, y1, width, height, area


@dataclass(frozen=True)
class RegionPlan:
    """Which regions of an image a joint encoder sees."""

    kind: Literal["boxes", "grid"]
    count: int  # regions at most; the first is the whole image
    box_score: float
    grid: tuple[int, int]  # patches: rows, columns


def regions_of(plan: RegionPlan, boxes: Boxes, crop: Crop | None = None) -> Tensor:
    """The regions [V, 4] of an image, or of a crop of it: x0, y0, x1, y1 in 0..1 of what is seen.

    boxes: [K, 5], x0, y0, x1, y1 in 0..1 of the whole image and a score. Boxes: the whole of what is seen, then
    the best ones, without those below the least score, outside, or near a better one. Grid: all patches.
    """
    if plan.kind == "grid":
        return cells(plan.grid)
    found = torch.from_numpy(boxes[boxes[:, 4] >= plan.box_score]).float()
    corners, scores = found[:, :4], found[:, 4]
    if crop is not None:
        size = torch.tensor([crop.image_width, crop.image_height] * 2)
        start = torch.tensor([crop.left, crop.top] * 2)
        corners = (corners * size - start) / torch.tensor([crop.width, crop.height] * 2)
    corners = corners.clamp(0, 1)
    inside = (corners[:, 2:] > corners[:, :2]).all(1)
    corners = torch.cat([torch.tensor([[0.0, 0, 1, 1]]), corners[inside]])
    scores = torch.cat([torch.tensor([torch.inf]), scores[inside]])
    return corners[nms(corners, scores, NEAR)[: plan.count]]


def cells(grid: tuple[int, int]) -> Tensor:
    """The boxes of all patches, [P, 4], row by row."""
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corners = torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], -1)
    return corners.flatten(0, 1)


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
