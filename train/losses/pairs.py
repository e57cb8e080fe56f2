"""Which of a batch's pairs are no wrong answers to each other: pairs of one image, and equal captions.

b pairs on this rank, B over all ranks; ids are int64, equal where images or captions are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from macco.train.distributed import ranks


@dataclass(frozen=True)
class PairIds:
    """What the pairs of a batch are made of."""

    image: Tensor  # [b]
    caption: Tensor  # [b]
    negatives: Tensor | None = None  # [b, K]: of the hard negative captions

    def gathered(self) -> "PairIds":
        """Those of all ranks."""
        negatives = None if self.negatives is None else ranks.gather(self.negatives)
        return PairIds(ranks.gather(self.image), ranks.gather(self.caption), negatives)


def same(own: PairIds, every: PairIds, first: int) -> Tensor:
    """Which of all pairs share their image or caption with each of this rank's, [b, B] bool; not itself.

    first: the place of this rank's pair 0 among the B.
    """
    found = (own.image[:, None] == every.image) | (own.caption[:, None] == every.caption)
    rows = torch.arange(len(found), device=found.device)
    found[rows, first + rows] = False
    return found


def true_negatives(own: PairIds, every: PairIds, negatives: Tensor) -> Tensor:
    """Which hard negatives are no true caption of the image, as far as the batch tells.

    negatives: ids [C], or [b, C] of each image's own. Returns [b, C] bool.
    """
    shown = _pair(every.image, every.caption)
    return ~torch.isin(_pair(own.image[:, None], negatives), shown)


def _pair(image: Tensor, caption: Tensor) -> Tensor:
    """One number for an image with a caption; int64 wraps."""
    return image * 0x1E3779B97F4A7C15 + caption
