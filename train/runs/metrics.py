"""Numbers of a run as it goes: one JSON object a line, and TensorBoard and W&B where they are asked for."""

import json
import os
from pathlib import Path
from typing import Any

from macco.pipeline.folder import put_file
from macco.pipeline.metrics import Sinks

FILE = "metrics.jsonl"
Row = dict[str, float]


def read(run: Path) -> list[Row]:
    """The rows written so far; a line that is none is left out, such as a last one that a kill cut off."""
    file = run / FILE
    rows: list[Row] = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and "step" in row and all(type(one) in (int, float) for one in row.values()):
            rows.append(row)
    return rows


class Metrics:
    """Writes rows; each has "step". One that goes on from a checkpoint drops the rows after its step."""

    def __init__(
        self, run: Path, step: int, *, tensorboard: bool, wandb: str, config: dict[str, Any]
    ) -> None:
        kept = [row for row in read(run) if row["step"] <= step]
        put_file(run / FILE, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = open(run / FILE, "a")  # noqa: SIM115 - open as long as the run
        self._sinks = Sinks(
            tensorboard=run / "tensorboard" if tensorboard else None,
            wandb=wandb, folder=run, name=run.resolve().name, step=step, config=config,
        )  # fmt: skip

    def write(self, row: Row) -> None:
        """Keep a row, and hand it on."""
        self._line(row)
        self._sinks.write(row)

    def close(self) -> None:
        self._file.close()
        self._sinks.close()

    def _line(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
