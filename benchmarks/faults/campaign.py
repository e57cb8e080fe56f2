"""Fault after fault: the command, disturbed; the same command, until it has done all; the rows compared."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from benchmarks.faults.command import HungError
from benchmarks.faults.kinds import Strike
from benchmarks.faults.scene import Rows, Scene

AGAIN = 3  # so often the command may be given again: what a killed one left at work may still be in the way


@dataclass
class Tally:
    """What faults did."""

    faults: int = 0
    lost: int = 0  # rows
    doubled: int = 0  # rows, also such as the undisturbed outcome does not have
    hung: int = 0  # commands that exceeded their limit
    stuck: int = 0  # faults after which the same command would not succeed
    tracebacks: int = 0  # disturbed commands that ended with one
    kinds: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        numbers = {name: value for name, value in vars(self).items() if name != "kinds"}
        return f"{len(self.kinds)} kinds, " + ", ".join(f"{value} {name}" for name, value in numbers.items())

    def bad(self) -> int:
        return self.lost + self.doubled + self.hung + self.stuck


def campaign(
    scene: Scene,
    kinds: Mapping[str, Strike],
    faults: int,
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Let `faults` faults happen, the kinds in turn; the same seed makes the same ones, up to the machine's pace."""
    tally = Tally()
    names = sorted(kinds)
    for number in range(faults):
        name = names[number % len(names)]
        scene.next()
        before = Tally(**vars(tally) | {"kinds": Counter(tally.kinds)})
        try:
            kinds[name](scene, Random(f"{seed} {number}"))
        except HungError:
            tally.hung += 1
        tally.tracebacks += "Traceback" in scene.said.read_text(errors="replace")
        done = scene.committed()
        _again(scene, tally)
        made: Rows = scene.made() if (scene.out / "store.json").exists() else Counter()
        tally.lost += (scene.calm - made).total()
        tally.doubled += (made - scene.calm).total()
        tally.faults += 1
        tally.kinds[name] += 1
        changed = {
            k: v for k, v in vars(tally).items() if k not in ("faults", "kinds") and v != vars(before)[k]
        }
        tell(f"{number}: {name}, {done} shards were done; {changed or 'rows equal'}")
        if changed:
            tell(scene.said.read_text(errors="replace")[-2000:])
    scene.next()
    return tally


def _again(scene: Scene, tally: Tally) -> None:
    for _ in range(AGAIN):
        try:
            if scene.start().wait(scene.limit) == 0:
                return
        except HungError:
            tally.hung += 1
    tally.stuck += 1
