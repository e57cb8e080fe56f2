"""How far a run is: a live line on a terminal, one plain line a minute in a log."""

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from macco.pipeline.metrics import Sinks

LOG_SECONDS = 60.0
ROW_SECONDS = 10.0  # between rows for TensorBoard and W&B


class RunProgress:
    """Counts what a run has done. Memory does not grow with the run: counters only."""

    def __init__(self, total: int, done: int = 0, sinks: Sinks | None = None) -> None:
        self.total = total  # shards of the plan
        self.skipped = done  # committed by an earlier run
        self.shards = 0
        self.failed = 0
        self.samples: Counter[str] = Counter()  # by status
        self._sinks = sinks
        self._steps: Counter[str] = Counter()  # seconds by step of the shards since the last row
        self._told = 0  # samples
        self._start = self._row = time.monotonic()
        self._logged = self._start
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("extract"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("shards  {task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=2,  # ten, which is the default, take 10 ms of CPU a second
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("extract", total=total, completed=done, note="")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._hand_on(time.monotonic())

    def committed(self, statuses: Mapping[str, int]) -> None:
        """One shard is in the store; `statuses` counts its samples."""
        self.shards += 1
        self.samples.update(statuses)
        self.tick()

    @property
    def asks_for_seconds(self) -> bool:
        """Whether anybody is told what steps took."""
        return bool(self._sinks)

    def took(self, seconds: Mapping[str, float]) -> None:
        """Of a shard that is about to be `committed`, by step, "total" among them."""
        self._steps.update(seconds)

    def gave_up(self) -> None:
        """One shard was given up."""
        self.failed += 1
        self.tick()

    def say(self, line: str) -> None:
        """Put a line of its own into the log."""
        self._console.print(" ".join(line.split()), highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Show the state where it is due."""
        self._bar.update(self._task, completed=self.skipped + self.shards + self.failed, note=self._note())
        now = time.monotonic()
        if now - self._row >= ROW_SECONDS:
            self._hand_on(now)
        if not self._console.is_terminal and now - self._logged >= LOG_SECONDS:
            self._logged = now
            left = self._seconds_left()
            done = self.skipped + self.shards
            eta = "unknown" if left is None else f"{left / 60:.0f} min"
            self._console.print(f"shards {done}/{self.total}  {self._note()}  left {eta}", highlight=False)

    def _hand_on(self, now: float) -> None:
        """A row of numbers, where anybody is to have them."""
        if not self._sinks:
            return
        samples, total = self.samples.total(), self._steps.pop("total", 0.0)
        row = {
            "step": self.skipped + self.shards,
            "shards": self.skipped + self.shards,
            "shards_failed": self.failed,
            "samples": samples,
            "samples_failed": samples - self.samples["ok"],
            "samples_per_second": (samples - self._told) / max(now - self._row, 1e-9),
        }
        if total:  # of the time in which shards were at work; steps overlap
            row |= {f"busy_{step}": seconds / total for step, seconds in self._steps.items()}
        self._sinks.write(row)
        self._steps.clear()
        self._told, self._row = samples, now

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def rate(self) -> float:
        """Samples per second since the start."""
        return self.samples.total() / max(self.seconds(), 1e-9)

    def _note(self) -> str:
        bad = self.samples.total() - self.samples["ok"]
        return f"{self.rate():.0f} samples/s  {bad} samples and {self.failed} shards failed"

    def _seconds_left(self) -> float | None:
        done = self.shards + self.failed
        return None if not done else self.seconds() / done * (self.total - self.skipped - done)
