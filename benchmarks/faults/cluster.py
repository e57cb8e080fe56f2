"""A Ray cluster for faults, kept by a process of its own, and the table of what can happen to a run on it.

The cluster serves one fault after another: its nodes are brought back after each.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from random import Random
from typing import Any, Final

import psutil

from benchmarks.faults.command import Command
from benchmarks.faults.kinds import Strike
from benchmarks.faults.scene import Scene

CPUS = 2  # of each of two nodes that workers are on; the node that drivers are connected to has none
HEALTH = {  # a node that does not answer is given up sooner than after a minute
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


class Keeper:
    """Starts and ends nodes, in another process: this one is to fork, and has no threads therefore."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_keep, args=(theirs,))
        self._process.start()
        self.address: str = self._pipe.recv()
        self.pids: list[int] = [self.add(), self.add()]  # of the raylets of the nodes with CPUs

    def add(self) -> int:
        self._pipe.send("add")
        pid: int = self._pipe.recv()
        return pid

    def remove(self, pid: int) -> None:
        """Let a node end in order, or what is left of one that was killed."""
        self._pipe.send(pid)
        self._pipe.recv()
        self.pids.remove(pid)

    def whole(self) -> None:
        """Bring back what is missing."""
        for pid in list(self.pids):
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() in ("stopped", "zombie"):
                self.remove(pid)
        while len(self.pids) < 2:
            self.pids.append(self.add())
        while len(self.pids) > 2:
            self.remove(self.pids[-1])

    def workers(self, kind: str) -> list[psutil.Process]:
        """The actors of a kind that are there."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if f"ray::{kind}" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join(60)
        self._process.kill()


def _keep(pipe: Connection) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH},
    )
    nodes: dict[int, Any] = {}
    pipe.send(cluster.address)
    while (asked := pipe.recv()) is not None:
        if asked == "add":
            node = cluster.add_node(num_cpus=CPUS, include_dashboard=False)
            pid = node.all_processes["raylet"][0].process.pid
            nodes[pid] = node
            pipe.send(pid)
        else:
            with suppress(ProcessLookupError):
                os.kill(asked, signal.SIGCONT)
            cluster.remove_node(nodes.pop(asked))
            pipe.send(None)
    cluster.shutdown()


def on_cluster(scene: Scene) -> Scene:
    """The scene's command, done on a cluster."""
    keeper = Keeper()
    more = ["--ray-address", keeper.address, "--workers", "2", "--parse-workers", "1"]
    more += ["--shard-timeout", "60", "--start-timeout", "300"]
    return replace(scene, cluster=keeper, more=more, limit=900.0)


def at_work(scene: Scene, random: Random) -> Command:
    """Start the command and return when some shards are committed, as many as the random numbers say."""
    scene.cluster.whole()
    command = scene.start()
    least = random.randrange(max(1, scene.calm_shards - 2))
    deadline = time.monotonic() + scene.limit
    while scene.committed() < least and not command.ended() and time.monotonic() < deadline:
        time.sleep(0.01)
    if not least:
        time.sleep(random.uniform(0, scene.seconds))
    return command


def to_worker(kind: str, act: Callable[[psutil.Process], None]) -> Strike:
    """A fault that hits one of the actors of a kind."""

    def strike(scene: Scene, random: Random) -> None:
        command = at_work(scene, random)
        with suppress(psutil.Error, IndexError):
            act(random.choice(scene.cluster.workers(kind)))
        command.wait(scene.limit)

    return strike


def starve(process: psutil.Process) -> None:
    """Let a process have hardly more memory than it has."""
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 2**20,) * 2)


def to_raylet(number: int) -> Strike:
    """A fault that hits what Ray runs on one of the nodes."""

    def strike(scene: Scene, random: Random) -> None:
        command = at_work(scene, random)
        os.kill(random.choice(scene.cluster.pids), number)
        command.wait(scene.limit)

    return strike


def to_driver(number: int) -> Strike:
    def strike(scene: Scene, random: Random) -> None:
        command = at_work(scene, random)
        command.signal(number)
        if number == signal.SIGSTOP:
            time.sleep(random.uniform(0, 10))
            command.signal(signal.SIGCONT)
        command.wait(scene.limit)

    return strike


def node_leaves(scene: Scene, random: Random) -> None:
    command = at_work(scene, random)
    scene.cluster.remove(random.choice(scene.cluster.pids))
    command.wait(scene.limit)


def node_joins(scene: Scene, random: Random) -> None:
    """All begins with one node, another joins, and the first one leaves."""
    scene.cluster.whole()
    first, second = scene.cluster.pids
    scene.cluster.remove(second)
    command = scene.start()
    time.sleep(random.uniform(0, scene.seconds))
    scene.cluster.pids.append(scene.cluster.add())
    scene.cluster.remove(first)
    command.wait(scene.limit)


RAY_KINDS: Final[dict[str, Strike]] = {
    "kill the driver": to_driver(signal.SIGKILL),
    "stop the driver": to_driver(signal.SIGSTOP),
    "SIGTERM to the driver": to_driver(signal.SIGTERM),
    "kill a grounder": to_worker("Grounder", lambda process: process.kill()),
    "stop a grounder": to_worker("Grounder", lambda process: process.suspend()),
    "starve a grounder": to_worker("Grounder", starve),
    "kill a parser": to_worker("Parser", lambda process: process.kill()),
    "stop a parser": to_worker("Parser", lambda process: process.suspend()),
    "starve a parser": to_worker("Parser", starve),
    "kill a raylet": to_raylet(signal.SIGKILL),
    "stop a raylet": to_raylet(signal.SIGSTOP),
    "a node leaves": node_leaves,
    "a node joins": node_joins,
}
