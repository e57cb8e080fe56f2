"""The commands in processes of their own, each a fork of one server that has imported what they need.

A fresh interpreter takes seconds to import PyTorch. Nothing that starts a thread may be imported here.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROGRAMS = {
    "macco-prep": "macco.preprocess.cli",
    "macco-train": "macco.train.cli",
    "faults": "benchmarks.faults.__main__",
}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "macco.preprocess.detectors.networks",
        "macco.preprocess.extraction.run",
        "macco.preprocess.graph.scene_graphs",
        "macco.train.evaluation.run",
        "macco.train.loop.run",
        "macco.train.objectives.macco.objective",
        "macco.train.results.product",
        "macco.train.results.report",
        "ray",
        "spacy",
    ]
)


class Command:
    """A command at work, like a `subprocess.Popen`; what it says is in `out` and `err`."""

    def __init__(self, program: str, *arguments: str, folder: str = ".", **variables: str) -> None:
        self._folder = TemporaryDirectory()
        self._said = [Path(self._folder.name, name) for name in ("out", "err")]
        given = [program, *arguments], folder, os.environ | variables, [str(path) for path in self._said]
        self._process = FORKS.Process(target=_be, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def out(self) -> str:
        return self._said[0].read_text()

    @property
    def err(self) -> str:
        return self._said[1].read_text()

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300.0) -> int:
        """The exit code."""
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, f"no end after {timeout:.0f} s\n{self.out}\n{self.err}"
        return code


def _be(arguments: list[str], folder: str, environment: Mapping[str, str], said: list[str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job's children lack
    sys.argv = arguments
    import_module(PROGRAMS[arguments[0]]).main()


def forked(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function as each of two ranks, in processes of their own: with 0 or 1, then the arguments."""
    ranks = [FORKS.Process(target=function, args=(rank, *arguments)) for rank in range(2)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(300)
    assert [each.exitcode for each in ranks] == [0, 0]


_PROGRAM = """\
#!{python}
import os, sys
from multiprocessing.connection import Client
with Client({address!r}) as server:
    server.send(([{name!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ)))
    code, out, err = server.recv()
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


@contextmanager
def programs() -> Iterator[str]:
    """A folder for the PATH of scripts: its macco-prep and macco-train are done by forks, one after another."""
    with TemporaryDirectory() as folder, Listener(f"{folder}/socket", backlog=8) as listener:
        for name in ("macco-prep", "macco-train"):
            program = Path(folder, name)
            program.write_text(_PROGRAM.format(python=sys.executable, address=f"{folder}/socket", name=name))
            program.chmod(0o755)
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield folder


def _serve(listener: Listener) -> None:
    with suppress(OSError):  # of one that is closed
        while True:
            with listener.accept() as script:
                words, folder, environment = script.recv()
                done = Command(*words, folder=folder, **environment)
                script.send((done.wait(), done.out, done.err))
