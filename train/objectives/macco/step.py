"""Gradients of one step from micro-batches, with every pair of the whole batch as a negative.

The contrast needs all features at once, but memory holds the graph of one micro-batch. So: features of all
micro-batches without a graph; the contrastive loss and its gradient with respect to them; then each
micro-batch once more with a graph, onto which that gradient is put. The towers hold no randomness, so the
second pass repeats the first.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.macco.model import Macco, masked_samples


def backward(
    model: Macco,
    batches: Sequence[MaskedBatch],
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    alone: bool = False,
) -> dict[str, Tensor]:
    """Add the gradients of one step, whose batch is cut into `batches`, to the parameters.

    precision: makes the autocast context of a forward pass; alone: as in `Macco.encode`. Returns what
    `Macco.forward` would return for the whole batch on this rank, detached. Gradients are this rank's:
    `ranks.average_gradients` comes after.
    """
    device = batches[0].tokens.device
    samples = masked_samples(batches, device)
    if len(batches) == 1:
        with precision():
            losses: dict[str, Tensor] = model(batches[0], samples, alone=alone)
        torch.autograd.backward(losses["loss"])
        return {name: loss.detach() for name, loss in losses.items()}

    with torch.no_grad(), precision():
        features = [model.features(model.encode(b, model.pixels(b.images), alone=alone)) for b in batches]
    cached = torch.cat(features).requires_grad_()
    valid = None
    if batches[0].negative_valid is not None:
        valid = torch.cat([b.negative_valid for b in batches if b.negative_valid is not None])
    with torch.autocast(device.type, enabled=False):
        losses = model.contrastive(cached, valid, model.pair_ids(batches))
    if losses:
        torch.autograd.backward(model.weighted(losses))

    gradients = None if cached.grad is None else torch.split(cached.grad, [len(b) for b in batches])
    size = sum(map(len, batches))
    for i, batch in enumerate(batches):
        with precision():
            pixels = model.pixels(batch.images)
            encodings = model.encode(batch, pixels, alone=alone)
            parts = model.reconstruction(batch, encodings, pixels, samples, size)
            onto = model.features(encodings)
        total = model.weighted(parts) if parts else onto.new_zeros(())
        if gradients is not None:
            total = total + (onto * gradients[i]).sum()
        torch.autograd.backward(total)
        for name, part in parts.items():
            losses[name] = losses[name] + part if name in losses else part
        losses = {name: loss.detach() for name, loss in losses.items()}
    return losses | {"loss": model.weighted(losses)}
