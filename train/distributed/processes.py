"""The processes of one run: alone, or as torchrun starts them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other ranks, where torchrun started more than one: nccl on CUDA, gloo on the CPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class Asked:
    """Whether, when it is called, a signal has asked to stop; and which one."""

    number = 0

    def __call__(self) -> bool:
        return self.number != 0

    @property
    def exit_code(self) -> int:
        """What the shell gives a process that this signal ended; SIGTERM, where another rank was asked."""
        return 128 + (self.number or signal.SIGTERM)


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Whether SIGTERM or Ctrl-C has come; a second one ends the process at once."""
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        asked.number = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, note) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
