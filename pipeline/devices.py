"""Where a model computes."""

import os
from typing import Literal

import torch

from macco.pipeline.errors import UserError


def choose_device(name: str, *, mps: Literal["no", "asked", "auto"] = "no") -> torch.device:
    """The device of that name, tried with one number; "auto" is CUDA where there is any, else the CPU.

    Under torchrun each process takes its own GPU. mps: whether Apple's may be asked for, or is what "auto" takes.

    Raises UserError for a device that there is not.
    """
    kinds = "auto, cpu, cuda or cuda:N" if mps == "no" else "auto, cpu, cuda, cuda:N or mps"
    if name == "auto":
        apple = mps == "auto" and torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if apple else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device is {name!r}: choose {kinds}") from error
    if device.type not in ("cpu", "cuda") and (mps == "no" or device.type != "mps"):
        raise UserError(f"device is {name!r}: choose {kinds}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device is {name!r}, but PyTorch sees no GPU: choose cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no GPU {device.index}: PyTorch sees {torch.cuda.device_count()}")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name} cannot be used ({reason}): choose cpu") from error
    return device
