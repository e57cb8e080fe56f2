"""Batches of regions, for joint encoders: a frozen tower's features, or images with the boxes that follow the crop."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms

from macco.train.data.batch import Batch
from macco.train.data.crops import BrokenImageError, cut, decode, draw_crop, read
from macco.train.data.loader import Batches, RegionPlan
from macco.train.data.masks import Crop
from macco.train.data.rows import Sample
from macco.train.objectives.joint.feature_files import ShardFeatures

NEAR = 0.9  # intersection over union from which two boxes are one region
Boxes = NDArray[np.float32]


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


class RegionBatches(Batches):
    """Batches without masks, whose images are regions."""

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        plan, regions = self.plan, self.plan.regions
        assert regions is not None
        tokens = plan.tokenize(sample.caption).ids
        image: NDArray[np.uint8] = np.empty(0, np.uint8)
        features = pooled = torch.empty(0)
        if regions.features is not None:
            found = _shard(regions.features, sample.shard).image(sample.id.rpartition("/")[0])
            if found is None:
                raise BrokenImageError("it could not be read when region features were made")
            boxes, features, pooled = found
        else:
            whole = decode(read(sample.source, sample.member, sample.offset, sample.size), plan.image_size)
            crop = draw_crop(*whole.size, random)
            boxes = regions_of(regions, sample.regions, crop)
            image = cut(whole, crop, plan.image_size)
        return sample.id, image, tokens, boxes, features, pooled, self.wrong(sample)

    def collate(self, made: list[Any]) -> Batch:
        ids, images, tokens, boxes, features, pooled, wrong = zip(*made, strict=True)
        padded = self.pad(tokens)
        count = torch.tensor([len(each) for each in boxes])
        cached = self.plan.regions is not None and self.plan.regions.features is not None
        negatives, valid = self.pad_wrong(tokens, wrong)
        return Batch(
            torch.from_numpy(np.stack(images)),
            padded,
            torch.zeros_like(padded, dtype=torch.bool),
            torch.zeros(len(made), 0, dtype=torch.bool),
            list(ids),
            negatives,
            valid,
            boxes=pad_sequence(list(boxes), batch_first=True),
            regions=torch.arange(int(count.max())) < count[:, None],
            features=pad_sequence(list(features), batch_first=True) if cached else None,
            pooled=torch.stack(pooled) if cached else None,
        )


@lru_cache(maxsize=128)
def _shard(folder: str, shard: str) -> ShardFeatures:
    return ShardFeatures.open(folder, shard)
