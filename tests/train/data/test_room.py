"""Batches are made where earlier ones were, never where one is still held."""

import gc

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.train.data.room import SMALL, room


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30))
def test_what_is_held_is_never_given_again(steps: list[tuple[int, bool]]) -> None:
    held: list[tuple[torch.Tensor, int]] = []
    for number, (rows, keep) in enumerate(steps):
        made = torch.from_numpy(room((rows, SMALL // 2)))
        made.fill_(number % 256)
        if keep:  # a part of it holds all of it: of the tensor, and of the array beneath
            part = made[rows // 2 :].view(-1)
            held.append((part if number % 2 else torch.from_numpy(part.numpy()[::2][1:]), number % 256))
        elif held:
            held.pop(0)
        assert all((part == value).all() for part, value in held)


def test_the_place_of_what_is_let_go_is_given_again() -> None:
    gc.collect()
    first = room((64, SMALL))
    place = first.ctypes.data
    batch = torch.from_numpy(first)
    del first
    assert room((64, SMALL)).ctypes.data != place
    part = batch[3:5].numpy()
    del batch
    assert room((64, SMALL)).ctypes.data != place
    del part
    again = [room((64, SMALL)) for _ in range(4)]
    assert place in {array.ctypes.data for array in again}
    assert room((0, 3)).shape == (0, 3)
    assert room((2, 2)).dtype == np.uint8


def test_a_view_of_an_array_holds_its_place() -> None:
    first = room((64, SMALL))
    place, part = first.ctypes.data, first[3:5][:, ::2]
    del first
    assert place not in {room((64, SMALL)).ctypes.data for _ in range(4)}
    assert part.base is not None
