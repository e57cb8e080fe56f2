"""The step of the public code that the benchmark holds ours against."""

import torch

from benchmarks.public_step import PublicStep
from tests.support.tiny import tiny_batch, tiny_macco


def test_its_loss_and_gradients_are_those_of_ours_under_its_numerics() -> None:
    model, other, batch = tiny_macco(reference=True), tiny_macco(), tiny_batch()
    expected, found = model(batch)["loss"], PublicStep(other, batch)()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    torch.autograd.backward(expected)
    torch.autograd.backward(found)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-7, atol=1e-9, msg=name)
