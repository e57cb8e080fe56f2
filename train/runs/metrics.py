"""Numbers of a run as it goes: one JSON object a line, and TensorBoard and W&B where they are asked for."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file

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
        self._close: list[Callable[[], None]] = [self._file.close]
        self._sinks: list[Callable[[Row], None]] = [self._line]
        if tensorboard:
            self._sinks.append(self._tensorboard(run, step))
        if wandb:
            self._sinks.append(self._wandb(run, wandb, config))

    def write(self, row: Row) -> None:
        """Hand a row to every sink."""
        for sink in self._sinks:
            sink(row)

    def close(self) -> None:
        for close in self._close:
            close()

    def _line(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _tensorboard(self, run: Path, step: int) -> Callable[[Row], None]:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("tensorboard=true needs the package: pip install tensorboard") from error
        writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self._close.append(writer.close)

        def sink(row: Row) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, int(row["step"]))

        return sink

    def _wandb(self, run: Path, project: str, config: dict[str, Any]) -> Callable[[Row], None]:
        try:
            import wandb  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise UserError(f"wandb={project} needs the package: pip install wandb") from error
        session = wandb.init(
            project=project, dir=str(run), id=run.resolve().name, resume="allow", config=config
        )
        self._close.append(session.finish)
        return lambda row: session.log(row, step=int(row["step"]))
