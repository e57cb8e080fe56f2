"""What comes out of a run, as a folder."""

from pathlib import Path

from macco.train.objectives.objective import load_objective
from macco.train.runs.weights import saved_config


def export_run(
    run: Path, out: Path, format: str = "open_clip", weights: str = "", interpolate: float | None = None
) -> None:
    """Write the product of a run: a plain CLIP, or what its objective makes instead.

    format: open_clip or hf. weights: latest, best or ema; empty: ema where the run keeps one, else latest.
    interpolate: share of the trained weights, the rest the start's; None: as the run was configured.
    """
    load_objective(saved_config(run)).write(run, out, format, weights, interpolate)
