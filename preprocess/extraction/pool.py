"""The workers of a run on Ray: as many as are asked for and fit, each in the place of one that died."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from macco.pipeline.errors import UserError
from macco.preprocess.extraction.actors import Grounder, Parser
from macco.preprocess.extraction.resources import Crew, Node, crew, described, nodes_up
from macco.preprocess.extraction.session import Session
from macco.preprocess.extraction.shard import Job

LOOK_SECONDS = 3.0  # between two looks at the cluster


@dataclass(eq=False)
class Worker:
    """An actor and what it was asked, oldest first: it works in order, so only the first can be done."""

    handle: Any
    calls: deque[
        tuple[Any, Job | None]
    ]  # (ref, job); those without a job ask where it is, then whether it is up
    since: float  # when the first call was begun, by the run's clock
    node: str = ""  # of its own, once Ray has placed it
    up: bool = False
    errors: int = 0  # shards in a row that failed here

    def ask(self, ref: Any, now: float, job: Job | None = None) -> None:
        if not self.calls:
            self.since = now
        self.calls.append((ref, job))

    def jobs(self) -> list[Job]:
        return [job for _, job in self.calls if job is not None]


@dataclass
class Pool:
    """Holds to what the cluster has now: nodes join and leave. It gives no work; see on_ray.py."""

    store_url: str
    writer: str | None  # see Grounder
    session: Session
    grounders: list[Worker] = field(default_factory=list)
    parsers: list[Worker] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    crew: Crew = field(default_factory=lambda: Crew(0, 0, 0))
    stillborn: int = 0  # workers in a row that died before they were up
    _again: float = 0.0  # none is started before
    _looked: float = float("-inf")
    _turn: int = 0

    def up(self) -> list[Worker]:
        """The grounding workers that can be given jobs: one that is not up holds none."""
        return [worker for worker in self.grounders if worker.up]

    def parser(self) -> Any:
        """The parsing worker whose turn it is, or None."""
        up = [worker.handle for worker in self.parsers if worker.up]
        self._turn += 1
        return up[self._turn % len(up)] if up else None

    def look(self, now: float, jobs: int) -> bool:
        """Every few seconds, start and stop workers by what the cluster has and how many jobs are left.

        Tell whether it was time to. Raises UserError when the node is gone that this process is connected to.
        """
        if now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        self.nodes = nodes_up()
        if all(node.id != self.session.node for node in self.nodes):
            raise UserError(
                "Ray on this machine has died, and its workers with it; what is committed is safe: give the "
                "same command again"
            )
        asked = self.session
        self.crew = crew(self.nodes, asked.gpus, asked.workers, asked.parse_workers)
        self._hold(min(self.crew.grounders, jobs), now)
        return True

    def _hold(self, grounders: int, now: float) -> None:
        surplus = max(0, len(self.grounders) - grounders)
        for worker in [one for one in self.grounders if not one.node][:surplus]:
            self.stop(worker)  # it waits for room that there is no more, or for jobs that others have
        if now >= self._again:
            while len(self.grounders) < grounders:
                options = {"num_cpus": 1, "num_gpus": self.session.gpus, "max_restarts": 0}
                given = self.session.config, self.store_url, self.writer
                self.grounders.append(_start(Grounder, options, now, *given))
        # A parser must not lie where a grounding worker could: without parsers all goes on, more slowly.
        placed = sum(bool(worker.node) for worker in self.grounders)
        most = self.crew.parsers if placed else 0
        if placed < min(grounders, self.crew.placeable):
            for worker in self.parsers[most:]:
                self.stop(worker)
        elif now >= self._again:
            while len(self.parsers) < most:
                self.parsers.append(
                    _start(Parser, {"num_cpus": 1, "max_restarts": 0}, now, self.session.config)
                )
        for worker in self.parsers:
            if worker.up and not worker.calls:
                worker.ask(worker.handle.ready.remote(), now)  # or nobody would tell of its death

    def done(self, timeout: float) -> Iterator[tuple[Worker, Any]]:
        """Workers that have done, or failed in, the first of their calls; wait for one."""
        first = {w.calls[0][0]: w for w in (*self.grounders, *self.parsers) if w.calls}
        refs, _ = ray.wait(list(first), num_returns=len(first), timeout=0) if first else ([], [])
        if not refs and first:
            refs, _ = ray.wait(list(first), timeout=timeout)
        elif not first:  # nobody is there to be waited for
            time.sleep(timeout)
        return ((first[ref], ref) for ref in refs)

    def placed(self, worker: Worker, node: str, now: float) -> None:
        """Ray has found a place for a worker, which is to load its models now."""
        worker.node = node
        worker.ask(worker.handle.ready.remote(), now)

    def is_up(self, worker: Worker) -> None:
        """A worker has loaded its models, or answered that it is alive."""
        worker.up = True
        self.stillborn = 0

    def stop(self, worker: Worker) -> list[Job]:
        """End a worker, dead or not; return the jobs that it holds. Another one takes its place at the next look."""
        ray.kill(worker.handle)
        (self.grounders if worker in self.grounders else self.parsers).remove(worker)
        return worker.jobs()

    def look_now(self) -> None:
        self._looked = float("-inf")

    def not_before(self, now: float) -> None:
        """Start no worker before."""
        self._again = now

    def node_is_up(self, node: str) -> bool:
        return any(one.id == node for one in nodes_up())

    def shortage(self) -> str:
        """What was asked for and does not fit into the cluster as it is, in words; empty where all does."""
        asked, fit = self.session, self.crew
        lacks = []
        if fit.placeable < (asked.workers or 1):
            lacks.append(f"of {asked.workers or 1} grounding workers {fit.placeable} fit")
        if fit.parsers < (asked.parse_workers or 0):
            lacks.append(f"of {asked.parse_workers} parsing workers {fit.parsers} fit beside them")
        there = f": the cluster has {described(self.nodes)}, and nodes that join are used"
        return f"{', '.join(lacks)}{there}" if lacks else ""

    def waiting(self) -> str:
        """What waits for what, in words; empty where nothing does."""
        waits = sum(not worker.node for worker in self.grounders)
        loads = sum(bool(worker.node) and not worker.up for worker in self.grounders)
        if not waits:
            return ""
        of = f"{waits} of {len(self.grounders)} grounding workers"
        room = f"1 CPU{f' and {self.session.gpus:g} GPU' if self.session.gpus else ''}"
        there = f"{len(self.up())} are up, {loads} load their models, {len(self.parsers)} parse"
        return f"{of} wait for {room} each: the cluster has {described(self.nodes)}; {there}"


def _start(kind: type, options: dict[str, Any], now: float, *arguments: Any) -> Worker:
    handle = ray.remote(**options)(kind).remote(*arguments)
    return Worker(handle, deque([(handle.place.remote(), None)]), now)
