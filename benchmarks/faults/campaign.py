"""Fault after fault: the command, disturbed; the same command, until it has done all; what is made, compared."""

import os
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, islice, product
from random import Random
from typing import NamedTuple

from benchmarks.faults.command import HungError
from benchmarks.faults.kinds import SWEEPING, Strike
from benchmarks.faults.scene import Scene

AGAIN = 3  # so often the command may be given again: what a killed one left at work may still be in the way


class Fault(NamedTuple):
    """What is to happen, and where."""

    number: int
    scene: Scene
    kind: str
    turn: int  # how many of this kind happened there before


@dataclass
class Tally:
    """What faults did."""

    faults: int = 0
    lost: int = 0  # rows
    doubled: int = 0  # rows, also such as the undisturbed outcome does not have
    hung: int = 0  # commands that exceeded their limit
    stuck: int = 0  # faults after which the same command would not succeed
    untrue: int = 0  # faults after which an exit code was not what it should be: 0, and not all was made
    tracebacks: int = 0  # faults of which a command said more than a line
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)  # (task, kind)

    def numbers(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if name != "kinds"}

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(value + vars(other)[name] for name, value in vars(self).items()))

    def __str__(self) -> str:
        kinds = len({kind for _, kind in self.kinds})
        return f"{kinds} kinds, " + ", ".join(f"{value} {name}" for name, value in self.numbers().items())

    def table(self) -> str:
        """The faults by kind, and by task."""
        lines = []
        for kind in sorted({kind for _, kind in self.kinds}):
            by_task = {task: n for (task, each), n in sorted(self.kinds.items()) if each == kind}
            told = ", ".join(f"{n} {task}" for task, n in by_task.items())
            lines.append(f"{kind}: {sum(by_task.values())} ({told})")
        return "\n".join(lines)

    def bad(self) -> int:
        return sum(self.numbers().values()) - self.faults


def plan(scenes: Sequence[Scene], kinds: Iterable[str], faults: int, seed: int) -> list[Fault]:
    """Every kind at every scene once; then those kinds at all of a scene's writes; then all others in turn."""
    pairs = [*product(scenes, sorted(kinds))]
    sweeps = [one for one in pairs if one[1] in SWEEPING for _ in range(one[0].writes - 1)]
    others = [one for one in pairs if one[1] not in SWEEPING]
    random, turns, found = Random(seed), Counter[tuple[str, str]](), list[Fault]()
    once = [*pairs]
    for each in (once, sweeps, others):
        random.shuffle(each)
    for number, (scene, kind) in enumerate(islice(chain(once, sweeps, cycle(others or once)), faults)):
        found.append(Fault(number, scene, kind, turns[scene.name, kind]))
        turns[scene.name, kind] += 1
    return found


def campaign(
    faults: Iterable[Fault],
    kinds: Mapping[str, Strike],
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Let faults happen; the same seed makes the same ones, up to the machine's pace."""
    tally = Tally()
    for fault in faults:
        scene = fault.scene
        scene.next(fault.turn)
        before = dict(vars(tally))
        try:
            kinds[fault.kind](scene, Random(f"{seed} {fault.number}"))
        except HungError:
            tally.hung += 1
        except AssertionError as error:
            tally.untrue += 1
            tell(str(error))
        done = scene.committed()
        if any(command.code == 0 for command in scene.given) and scene.made() != scene.calm:
            tally.untrue += 1
        _again(scene, tally)
        made = scene.made()
        tally.lost += (scene.calm - made).total()
        tally.doubled += (made - scene.calm).total()
        said = scene.said.read_text(errors="replace") if scene.said.exists() else ""
        tally.tracebacks += "Traceback" in said
        tally.faults += 1
        tally.kinds[scene.name, fault.kind] += 1
        changed = {name: value for name, value in tally.numbers().items() if value != before[name]}
        changed.pop("faults")
        shards = f", {done} shards were done" if scene.calm_shards else ""
        tell(f"{fault.number}: {scene.name}: {fault.kind}{shards}; {changed or 'all as undisturbed'}")
        if changed:
            tell(said[-3000:])
    return tally


def _again(scene: Scene, tally: Tally) -> None:
    for _ in range(AGAIN):
        try:
            code = scene.start().wait(scene.limit)
            if code == 0 or (code == 2 and scene.task.once and scene.made() == scene.calm):
                return
        except HungError:
            tally.hung += 1
    tally.stuck += 1


def side_by_side(
    faults: Sequence[Fault],
    kinds: Mapping[str, Strike],
    seed: int,
    jobs: int,
    tell: Callable[[str], None] = lambda line: None,
) -> Tally:
    """The same campaign in forks of this process, each with a share of the faults and a folder of its own."""
    pipes = []
    for job in range(jobs):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(read)
                for scene in {id(fault.scene): fault.scene for fault in faults}.values():
                    scene.folder /= f"job{job}"
                    scene.folder.mkdir()
                tally = campaign(faults[job::jobs], kinds, seed, tell)
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(tally, pipe)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(write)
        pipes.append((pid, os.fdopen(read, "rb")))
    total = Tally()
    for pid, pipe in pipes:
        total += pickle.load(pipe)
        os.waitpid(pid, 0)
    return total
