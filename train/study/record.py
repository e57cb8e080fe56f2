"""What a finished run of a study leaves: its figures, steps and seconds. A run is finished when this is there."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.train.runs.metrics import read as read_metrics

FILE: Final = "record.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One evaluated model."""

    steps: int  # 0: the model that training starts from
    seconds: float  # of the steps themselves: saving, validating and evaluating are left out
    device: str
    figures: dict[str, dict[str, float | None]]  # percent, by benchmark and figure


def write_record(folder: Path, record: Record) -> None:
    put_file(folder / FILE, json.dumps(asdict(record), indent=1).encode())


def read_record(folder: Path) -> Record | None:
    """None where the run is not finished."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Record(**json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}): delete {folder} to run it again") from error


def training_seconds(run: Path, batch_size: int) -> float:
    """Seconds of all steps of a run, however often it was stopped, from the speeds in its metrics."""
    seconds, before = 0.0, 0.0
    for row in read_metrics(run):
        if "samples_per_second" in row:
            seconds += (row["step"] - before) * batch_size / row["samples_per_second"]
            before = row["step"]
    return seconds
