"""The losses of the last steps, looked at together."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.train.distributed import ranks
from macco.train.runs.metrics import Row


class LossWindow:
    """Losses of steps. Looking at them makes the CPU wait for the GPU and for the other ranks: not at each step."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._unseen: list[tuple[int, list[str], Tensor]] = []
        self._seen: list[list[float]] = []

    def add(self, step: int, ids: list[str], losses: dict[str, Tensor], stop: bool) -> None:
        """Note the losses of a step, and whether this rank is asked to stop."""
        self._names = list(losses)
        values = list(losses.values())
        flag = values[0].new_full((), float(stop), dtype=torch.float32)
        self._unseen.append((step, ids, torch.stack([*(value.float() for value in values), flag])))

    def look(self, run: Path) -> bool:
        """Take the means over ranks; returns whether any rank is asked to stop. All ranks look at once.

        Raises:
            UserError: a loss is not finite; the sample ids of the first such step are written to `run`.
        """
        means = ranks.mean(torch.stack([values for _, _, values in self._unseen])).tolist()
        for (step, ids, _), values in zip(self._unseen, means, strict=True):
            named = dict(zip(self._names, values, strict=False))
            bad = [name for name, value in named.items() if not math.isfinite(value)]
            if bad:
                file = run / f"nonfinite-rank{ranks.rank()}.json"
                put_file(file, json.dumps({"step": step, "losses": named, "ids": ids}, indent=1).encode())
                raise UserError(
                    f"{bad[0]} is not finite at step {step}: its samples are in {file}; lower "
                    "optimizer.lr or set optimizer.clip_norm, and start anew"
                )
        self._seen += means
        self._unseen = []
        return any(values[-1] > 0 for values in means)

    def mean(self) -> tuple[Row, int]:
        """Means over the steps looked at since the last call, and how many they are."""
        table, self._seen = torch.tensor(self._seen, dtype=torch.float64), []
        return dict(zip(self._names, table.mean(0).tolist(), strict=False)), len(table)
