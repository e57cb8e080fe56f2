"""Where a fault happens: a task's command, what it makes undisturbed, and what it made after all."""

import os
import pickle
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.command import Command, Prepare, Writes
from benchmarks.faults.tasks import COPY, CORPUS, Rows, Task


@dataclass
class Scene:
    """One task, with its undisturbed outcome."""

    name: str
    task: Task
    corpus: Path
    store: Path  # extracted from it
    folder: Path
    limit: float  # seconds that a command may take
    more: list[str] = field(default_factory=list)  # arguments, of where it is done
    cluster: Any = None  # see cluster.py
    calm: Rows = field(default_factory=Counter)
    seconds: float = 0.0  # that the undisturbed command takes
    writes: int = 0  # that it does
    calm_shards: int = 0  # that it commits
    number: int = 0
    given: list[Command] = field(default_factory=list)  # the commands since the last `next`
    turn: int = 0  # the write at which what comes at every write comes now

    def begin(self) -> "Scene":
        """Run the command undisturbed."""
        self.folder.mkdir(exist_ok=True)
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
    def said(self) -> Path:
        return self.folder / f"said{self.number}"

    def next(self, turn: int = 0) -> None:
        """A new out, the old one gone."""
        for left in self.folder.glob(f"out{self.number}*"):
            shutil.rmtree(left)
        self.said.unlink(missing_ok=True)
        self.number += 1
        self.turn = turn
        self.given.clear()
        if self.task.source == COPY:
            shutil.copytree(self.store, self.out)

    def start(self, prepare: Prepare | None = None) -> Command:
        source = self.corpus if self.task.source == CORPUS else self.store
        command = Command([*self.task.arguments(source, self.out), *self.more], self.said, prepare)
        self.given.append(command)
        return command

    def committed(self) -> int:
        """How many shards of a store are done."""
        folder = self.out / "shards"
        return sum(1 for file in folder.glob("[!._]*.json")) if folder.is_dir() else 0

    def made(self) -> Rows:
        """What is in out, as far as that can be read, by a process of its own.

        DuckDB's threads must not be here when this one forks.
        """
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(read)
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(self.task.made(self.out), pipe)
            except BaseException as error:
                with open(self.said, "a") as said:
                    said.write(f"out cannot be read: {type(error).__name__}: {error}\n")
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        rows: Rows = pickle.loads(data) if data else Counter()
        return rows
