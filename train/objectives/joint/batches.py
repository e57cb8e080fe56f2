"""Batches of regions, for joint encoders: a frozen tower's features, or images with the boxes that follow the crop."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from macco.train.data.batch import Batch
from macco.train.data.crops import BrokenImageError
from macco.train.data.recipe import Recipe
from macco.train.data.rows import Sample
from macco.train.objectives.joint.feature_files import ShardFeatures
from macco.train.objectives.joint.regions import RegionPlan, regions_of


@dataclass(frozen=True, kw_only=True)
class RegionBatch(Batch):
    """B captions with V regions of each image, padded at the end. With features there are no images [B, 0]."""

    boxes: Tensor  # [B, V, 4]: x0, y0, x1, y1 in 0..1 of the image as it is seen
    regions: Tensor  # [B, V] bool: regions that are no padding
    features: Tensor | None = None  # [B, V, D] float16, of a frozen tower
    pooled: Tensor | None = None  # [B, D] float16: the whole images, as the tower pools them


@dataclass(frozen=True, kw_only=True)
class RegionPairs(Recipe):
    """Captions and regions, whose features lie in the folder `features`; without it crops with their regions."""

    regions: RegionPlan
    features: str | None = None  # a folder that `features.make_features` filled

    @property
    def box_score(self) -> float | None:
        return self.regions.box_score if self.features is None and self.regions.kind == "boxes" else None

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        tokens = self.tokenize(sample.caption).ids
        image: NDArray[np.uint8] = np.empty(0, np.uint8)
        features = pooled = torch.empty(0)
        if self.features is not None:
            found = _shard(self.features, sample.shard).image(sample.id.rpartition("/")[0])
            if found is None:
                raise BrokenImageError("it could not be read when region features were made")
            boxes, features, pooled = found
        else:
            image, crop = self.crop(sample, random)
            boxes = regions_of(self.regions, sample.regions, crop)
        return (sample.id, sample.image), image, tokens, boxes, features, pooled, self.hard_negatives(sample)

    def collate(self, made: list[Any]) -> RegionBatch:
        names, images, tokens, boxes, features, pooled, hard = zip(*made, strict=True)
        count = torch.tensor([len(each) for each in boxes])
        cached = self.features is not None
        return RegionBatch(
            boxes=pad_sequence(list(boxes), batch_first=True),
            regions=torch.arange(int(count.max())) < count[:, None],
            features=pad_sequence(list(features), batch_first=True) if cached else None,
            pooled=torch.stack(pooled) if cached else None,
            **self.pairs(names, images, tokens, hard),
        )


@lru_cache(maxsize=128)
def _shard(folder: str, shard: str) -> ShardFeatures:
    return ShardFeatures.open(folder, shard)
