"""Checkpoints: one file with all that a run needs to go on, never half written."""

import os
from pathlib import Path
from typing import Any

import torch

from macco.pipeline.errors import UserError
from macco.pipeline.folder import replacing

FOLDER = "checkpoints"
LATEST = "latest"
BEST = "best"
HELD = {"step": int, "model": dict, "optimizer": dict, "rng": list, "data": dict}  # beside what may be there


def path(run: Path, name: str) -> Path:
    """Where a run keeps its checkpoint `name`."""
    return run / FOLDER / f"{name}.pt"


def save(run: Path, name: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one.

    Raises UserError where it cannot be written (a full disk); the old one is still there then.
    """
    target = path(run, name)
    with replacing(target) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            raise UserError(f"cannot write {target}: {error}; the checkpoint before it is safe") from error
        file.flush()
        os.fsync(file.fileno())


def load(run: Path, name: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, tensors and plain values only."""
    source = path(run, name)
    if not source.is_file():
        there = sorted(file.stem for file in source.parent.glob("*.pt"))
        raise UserError(f"{run} has no checkpoint {name!r}: it has {', '.join(there) or 'none'}")
    try:
        state: Any = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{source} cannot be read ({type(error).__name__}): delete it to start anew"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in HELD.items()):
        raise UserError(f"{source} is no checkpoint of a run: restore it, or delete it to start anew")
    found: dict[str, Any] = state
    return found


def require_none(run: Path) -> None:
    """Raise UserError where a run is to begin in a folder that holds what an earlier one made.

    Its best checkpoint and its model would be taken for the new run's.
    """
    left = [str(place) for place in (path(run, BEST), run / "model") if place.exists()]
    if left:
        raise UserError(
            f"{run} has no checkpoint to go on from, but {' and '.join(left)} of an earlier run: "
            "choose another --out, or delete what is there"
        )
