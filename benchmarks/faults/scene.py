"""Where a fault happens: a task's command, what it makes undisturbed, and what it made after all."""

import os
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.command import Command, Prepare, Writes

Rows = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class Task:
    """A command that makes something, and how to read what it made."""

    arguments: Callable[[Path, Path], list[str]]  # (corpus, out) -> of macco-prep
    rows: Callable[[Path], Rows]  # all rows of out, as a reader sees them
    extracted: Callable[[Path], Path] | None = None  # out -> the store that has to be there before
    more: tuple[str, ...] = ()  # arguments, where it is done in one process


@dataclass
class Scene:
    """One task, with its undisturbed outcome."""

    task: Task
    corpus: Path
    folder: Path
    limit: float  # seconds that a command may take
    more: list[str] = field(default_factory=list)  # arguments, of where it is done
    cluster: Any = None  # see cluster.py
    calm: Rows = field(default_factory=Counter)
    seconds: float = 0.0  # that the undisturbed command takes
    writes: int = 0  # that it does
    calm_shards: int = 0  # that it commits
    number: int = 0

    def begin(self) -> "Scene":
        """Run the command undisturbed."""
        if self.task.extracted is not None:
            base = ["extract", "--shards", f"{self.corpus}/*.tar", "--out", str(self.base), "--device", "cpu"]
            if Command([*base, "--workers", "0"], self.said).wait(self.limit):
                raise RuntimeError(f"the store could not be made: {self.said.read_text()}")
        self.next()
        writes = Writes(self.out)
        start = time.monotonic()
        command = self.start(writes.watch)
        if command.wait(self.limit):
            raise RuntimeError(f"the undisturbed command failed: {command.said.read_text()}")
        self.seconds, self.writes = time.monotonic() - start, writes.count
        self.calm_shards = self.committed()
        self.calm = self.made()
        return self

    @property
    def out(self) -> Path:
        return self.folder / f"out{self.number}"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def said(self) -> Path:
        return self.folder / f"said{self.number}"

    def next(self) -> None:
        """A new out, the old one gone."""
        for left in self.folder.glob(f"out{self.number}*"):
            shutil.rmtree(left)
        self.number += 1
        if self.task.extracted is not None:
            shutil.copytree(self.base, self.task.extracted(self.out))

    def start(self, prepare: Prepare | None = None) -> Command:
        return Command([*self.task.arguments(self.corpus, self.out), *self.more], self.said, prepare)

    def committed(self) -> int:
        """How many shards of a store are done."""
        folder = self.out / "shards"
        return sum(1 for file in folder.glob("[!._]*.json")) if folder.is_dir() else 0

    def made(self) -> Rows:
        """The rows of out, read in a process of its own: DuckDB's threads must not be here when this one forks."""
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(read)
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(self.task.rows(self.out), pipe)
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        rows: Rows = pickle.loads(data)
        return rows
