"""What the pairs of a step's micro-batches are, together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from macco.train.data.batch import Batch
from macco.train.losses.pairs import PairIds


def pair_ids(batches: Sequence[Batch]) -> PairIds | None:
    """What the pairs of micro-batches are made of; None where that is not known."""

    def joined(name: str) -> Tensor | None:
        parts = [part for batch in batches if (part := getattr(batch, name)) is not None]
        return torch.cat(parts) if parts else None

    image, caption = joined("image_ids"), joined("caption_ids")
    return None if image is None or caption is None else PairIds(image, caption, joined("negative_ids"))
