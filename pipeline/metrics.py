"""Numbers of a run as it goes, to TensorBoard and to W&B where they are asked for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError

Row = Mapping[str, float]


class Sinks:
    """Hands rows on; each has "step", which rises. Where nothing is asked for, it does nothing."""

    def __init__(
        self,
        *,
        tensorboard: Path | None,
        wandb: str,
        folder: Path,
        name: str,
        step: int,
        config: Mapping[str, Any],
    ) -> None:
        """tensorboard: folder of its files. wandb: a project, whose run `name` keeps its files in `folder`.

        step: the last one of an earlier part of the run, after which this one goes on. Raises UserError for a package
        that is not installed, or a service that does not answer.
        """
        self._close: list[Callable[[], object]] = []
        self._sinks: list[Callable[[Row], object]] = []
        if tensorboard is not None:
            self._tensorboard(tensorboard, step)
        if wandb:
            self._wandb(wandb, folder, name, config)

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def write(self, row: Row) -> None:
        """Hand a row to both."""
        for sink in self._sinks:
            sink(row)

    def close(self) -> None:
        """Let them write what they still hold."""
        for close in self._close:
            close()

    def _tensorboard(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed: pip install tensorboard") from error
        try:
            writer = SummaryWriter(str(folder), purge_step=step + 1)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error}") from error
        self._close.append(writer.close)

        def sink(row: Row) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, int(row["step"]))

        self._sinks.append(sink)

    def _wandb(self, project: str, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("W&B is not installed: pip install wandb") from error
        try:
            session = wandb.init(
                project=project, dir=str(folder), id=name, resume="allow", config=dict(config)
            )
        except wandb.errors.Error as error:
            raise UserError(f"W&B: {error}; WANDB_MODE=offline keeps its files here") from error
        self._close.append(session.finish)
        self._sinks.append(lambda row: session.log(dict(row), step=int(row["step"])))
