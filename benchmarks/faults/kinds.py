"""The table of faults that can happen to any command, in one process. A further one is a function and a line in it.

Each begins the scene's command and lets it end, disturbed, as the random numbers say; it may not fail itself.
"""

import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from random import Random
from typing import Final

from benchmarks.faults.command import Writes
from benchmarks.faults.scene import Scene

Strike = Callable[[Scene, Random], None]


def at_write(
    scene: Scene, random: Random, act: Callable[[], None], number: int | None = None
) -> Callable[[], None]:
    """Prepare a command to act at one of its writes: of a number, or one of all, which are as likely."""
    chosen = random.randrange(scene.writes) if number is None else number % scene.writes
    writes = Writes(scene.out)
    return lambda: writes.watch(lambda number, *_: act() if number == chosen else None)


def kill_at_write(scene: Scene, random: Random) -> None:
    act = at_write(scene, random, lambda: os.kill(os.getpid(), signal.SIGKILL), scene.turn)
    scene.start(act).wait(scene.limit)


def kill_at_any_time(scene: Scene, random: Random) -> None:
    command = scene.start()
    time.sleep(random.uniform(0, scene.seconds))
    command.signal(signal.SIGKILL)
    command.wait(scene.limit)


def term_at_write(scene: Scene, random: Random) -> None:
    number = random.choice([signal.SIGTERM, signal.SIGINT])
    command = scene.start(at_write(scene, random, lambda: os.kill(os.getpid(), number)))
    if command.wait(scene.limit) not in (128 + number, -number, 0):
        raise AssertionError(f"{number.name}: exit {command.code}")


def stop_and_go_on(scene: Scene, random: Random) -> None:
    """The process stands still for a while, and another one with the same command comes."""
    first = scene.start(at_write(scene, random, lambda: os.kill(os.getpid(), signal.SIGSTOP)))
    time.sleep(random.uniform(0, scene.seconds))
    scene.start().wait(scene.limit)
    deadline = time.monotonic() + scene.limit
    while not first.ended() and time.monotonic() < deadline:
        first.signal(signal.SIGCONT)  # it may not have stopped yet
        time.sleep(0.05)
    first.wait(0)


def out_of_memory(scene: Scene, random: Random) -> None:
    """At one of its writes, or from it on, the process gets no memory. (Where the kernel says so, it is a SIGKILL.)

    A limit of the address space would not do: it keeps threads from starting, and Python and Arrow wait for those.
    """
    chosen, last, writes = (
        random.randrange(scene.writes),
        random.choice([0, 2, scene.writes]),
        Writes(scene.out),
    )

    def act(number: int, event: str, path: str) -> None:
        if chosen <= number <= chosen + last:
            raise MemoryError

    scene.start(lambda: writes.watch(act)).wait(scene.limit)


def disk_full(scene: Scene, random: Random) -> None:
    """From one of its writes on nothing new can be created."""
    chosen, writes = scene.turn % scene.writes, Writes(scene.out)

    def act(number: int, event: str, path: str) -> None:
        if number >= chosen and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    scene.start(lambda: writes.watch(act)).wait(scene.limit)


def file_cut_short(scene: Scene, random: Random) -> None:
    """From one of its writes on a file ends after some bytes, in the middle of what is being written."""
    size = int(2 ** random.uniform(0, 14))

    def cut() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    scene.start(at_write(scene, random, cut)).wait(scene.limit)


def read_only(scene: Scene, random: Random) -> None:
    """From one of its writes on the folder of it, or all of them, can only be read."""
    chosen, writes = random.randrange(scene.writes), Writes(scene.out)
    folders = [str(scene.out)] if random.random() < 0.5 else []

    def act(number: int, event: str, path: str) -> None:
        if number == chosen:
            folders.append(os.path.dirname(path))
        if number >= chosen and path.startswith(tuple(folders)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    scene.start(lambda: writes.watch(act)).wait(scene.limit)


def clock_jump(scene: Scene, random: Random) -> None:
    """The clock jumps at one of the writes, and before the next command the inputs bear another time."""
    jump, real = random.choice([-1, 1]) * 10 ** random.uniform(0, 8), time.time

    def leap() -> None:
        time.time = lambda: real() + jump

    kill = random.random() < 0.5
    command = scene.start(at_write(scene, random, leap))
    if kill:
        time.sleep(random.uniform(0, scene.seconds))
        command.signal(signal.SIGKILL)
    command.wait(scene.limit)
    for file in scene.corpus.glob("*.tar"):
        os.utime(file, (max(0.0, real() + jump),) * 2)


def two_at_once(scene: Scene, random: Random) -> None:
    """Two processes are given the same command."""
    first = scene.start()
    time.sleep(random.uniform(0, scene.seconds))
    second = scene.start()
    if random.random() < 0.5:
        time.sleep(random.uniform(0, scene.seconds))
        first.signal(signal.SIGKILL)
    codes = {second.wait(scene.limit), first.wait(scene.limit)}
    if not codes <= {0, 2, -signal.SIGKILL}:
        raise AssertionError(f"two commands at once: exits {codes}")


SWEEPING: Final = ("kill at a write", "disk full")  # kinds that are to come at every write
KINDS: Final[dict[str, Strike]] = {
    "kill at a write": kill_at_write,
    "kill at any time": kill_at_any_time,
    "SIGTERM or SIGINT at a write": term_at_write,
    "stop and go on": stop_and_go_on,
    "out of memory": out_of_memory,
    "disk full": disk_full,
    "file cut short": file_cut_short,
    "read-only folder": read_only,
    "clock jump": clock_jump,
    "two drivers": two_at_once,
}
