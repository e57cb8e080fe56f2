"""A command in a fork of this process, which has imported everything and loaded the models already."""

import contextlib
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

Prepare = Callable[[], None]
PROGRAMS = {"macco-prep": "macco.preprocess.cli", "macco-train": "macco.train.cli"}


class HungError(Exception):
    """A command exceeded its limit."""


def warm() -> None:
    """Import and load what the commands need, once; their forks share it. No thread may be started here."""
    import duckdb  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from macco.preprocess import cli, detectors  # noqa: F401
    from macco.preprocess.config import ExtractConfig
    from macco.preprocess.extraction import run, shard  # noqa: F401
    from macco.preprocess.graph import scene_graphs
    from macco.train.clip.load import load_clip
    from macco.train.loop import run as loop  # noqa: F401
    from macco.train.objectives.objective import objective_class
    from macco.train.results import product, report  # noqa: F401

    detectors.load_detector = cache(detectors.load_detector)  # type: ignore[assignment]
    scene_graphs.load_pipeline = cache(scene_graphs.load_pipeline)  # type: ignore[assignment]
    config = ExtractConfig(device="cpu")
    shard.Extractor(config, parse=lambda captions: NotImplemented)
    scene_graphs.SceneGraphs.load(config.parser, config.rules)
    config.settings()
    objective_class("macco")
    load_clip("macco-demo")


class Command:
    """A command line at work, its first word the program's; what it says goes to a file."""

    def __init__(self, arguments: list[str], said: Path, prepare: Prepare | None = None) -> None:
        self.said = said
        self.code: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _be(arguments, said, prepare)

    def signal(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, limit: float) -> int:
        """The exit code, as subprocess gives it; raises HungError, and ends the command, after `limit` seconds."""
        deadline = time.monotonic() + limit
        while not self.ended():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -signal.SIGKILL
                raise HungError(f"{self.said}: no end after {limit:.0f} s")
            time.sleep(0.005)
        assert self.code is not None
        return self.code

    def traceback(self) -> bool:
        """Tell whether it ended in other words than one line."""
        return "Traceback" in self.said.read_text(errors="replace")


def _be(arguments: list[str], said: Path, prepare: Prepare | None) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if prepare is not None:
            prepare()
        sys.argv = arguments
        import_module(PROGRAMS[arguments[0]]).main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class Writes:
    """Counts what a command does to files under a folder; at one of them something may happen."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self._count = mmap.mmap(-1, 8)  # shared with forks

    @property
    def count(self) -> int:
        return int.from_bytes(self._count[:], "little")

    def watch(self, act: Callable[[int, str, str], None] = lambda number, event, path: None) -> None:
        """From now on, in this process: `act` is told the number, event and path of each; it may raise OSError."""

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
                return
            path = arguments[0]
            if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(self.folder):
                return
            if event == "open":
                flags = arguments[2]
                if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    return
            number = self.count
            self._count[:] = (number + 1).to_bytes(8, "little")
            act(number, event, os.fspath(path))

        sys.addaudithook(hook)
