"""One step of MACCO, whole or from micro-batches."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from macco.train.objectives import accumulate
from macco.train.objectives.macco.batch import MaskedBatch
from macco.train.objectives.macco.model import Encodings, Macco, masked_samples

if TYPE_CHECKING:
    from macco.train.objectives.objective import Precision


def backward(
    model: Macco, batches: Sequence[MaskedBatch], precision: "Precision" = nullcontext, *, alone: bool = False
) -> dict[str, Tensor]:
    """Add the gradients of one step, whose batch is cut into `batches`, to the parameters.

    precision: makes the autocast context of a forward pass; alone: as in `Macco.encode`. Returns what
    `Macco.forward` would return for the whole batch on this rank, detached.
    """
    samples = masked_samples(batches, batches[0].tokens.device)
    size = sum(map(len, batches))
    exist = [batch.negative_valid for batch in batches if batch.negative_valid is not None]
    valid, ids = torch.cat(exist) if exist else None, model.pair_ids(batches)

    def encode(batch: MaskedBatch) -> tuple[accumulate.Features, tuple[Tensor, Encodings, Tensor]]:
        pixels = model.pixels(batch.images)
        encodings = model.encode(batch, pixels, alone=alone)
        features = model.features(encodings)
        return {"views": features}, (pixels, encodings, features)

    def within(batch: MaskedBatch, seen: tuple[Tensor, Encodings, Tensor]) -> dict[str, Tensor]:
        pixels, encodings, features = seen
        losses = model.reconstruction(batch, encodings, pixels, samples, size)
        return losses | model.taught(batch, model.plain(features))

    return accumulate.backward(
        batches,
        encode=encode,
        across=lambda features: model.contrastive(features["views"], valid, ids),
        within=within,
        weighted=model.weighted,
        precision=precision,
    )
