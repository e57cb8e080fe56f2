"""Gradients of one step from micro-batches, with every pair of the whole batch as a negative.

A contrast needs all features at once, but memory holds the graph of one micro-batch. So: features of all
micro-batches without a graph; the losses across pairs and their gradient with respect to the features; then each
micro-batch once more with a graph, onto which that gradient is put. The towers hold no randomness, so the
second pass repeats the first.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from macco.train.data.batch import Batch

if TYPE_CHECKING:  # the interface reads stores and writes files, and a step does neither
    from macco.train.objectives.objective import Precision

B = TypeVar("B", bound=Batch)
E = TypeVar("E")
Losses = dict[str, Tensor]
Features = dict[
    str, Tensor
]  # by name; the first dimension is of pairs, or of texts, patches that belong to pairs


def backward(
    batches: Sequence[B],
    *,
    encode: Callable[[B], tuple[Features, E]],
    across: Callable[[Features], Losses],
    within: Callable[[B, E], Losses],
    weighted: Callable[[Losses], Tensor],
    precision: "Precision",
) -> Losses:
    """Add the gradients of one step, whose batch is cut into `batches`, to the parameters.

    encode: a micro-batch's features and whatever else `within` needs of it; across: the losses of all this rank's
    features, in that order; within: the losses of one micro-batch alone, whose sum over micro-batches is the
    step's; weighted: losses to their weighted sum. Returns this rank's losses, detached, and "loss". Gradients are
    this rank's: `ranks.average_gradients` comes after.
    """
    device = batches[0].tokens.device
    if len(batches) == 1:
        with precision():
            features, rest = encode(batches[0])
            with torch.autocast(device.type, enabled=False):
                losses = across(features)
            losses |= within(batches[0], rest)
        losses |= {"loss": weighted(losses)}
        torch.autograd.backward(losses["loss"])
        return {name: loss.detach() for name, loss in losses.items()}

    with torch.no_grad(), precision():
        found = [encode(batch)[0] for batch in batches]
    cached = {name: torch.cat([part[name] for part in found]).requires_grad_() for name in found[0]}
    with torch.autocast(device.type, enabled=False):
        losses = across(cached)
    if losses:
        torch.autograd.backward(weighted(losses))
    reached = {
        name: torch.split(x.grad, [len(part[name]) for part in found])
        for name, x in cached.items()
        if x.grad is not None
    }
    for i, batch in enumerate(batches):
        with precision():
            onto, rest = encode(batch)
            parts = within(batch, rest)
        total = weighted(parts) if parts else torch.zeros((), device=device)
        for name, gradients in reached.items():
            total = total + (onto[name] * gradients[i]).sum()
        if total.requires_grad:  # not where both towers are as they are
            torch.autograd.backward(total)
        for name, part in parts.items():
            losses[name] = losses[name] + part if name in losses else part
        losses = {name: loss.detach() for name, loss in losses.items()}
    return losses | {"loss": weighted(losses)}
