"""A run on Ray: CPU actors parse, CPU or GPU actors ground and commit, and a loop hands them shards."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.extraction.attempts import Attempts
from macco.preprocess.extraction.shard import Extractor, Graphs, Job
from macco.preprocess.graph.scene_graphs import SceneGraphs

IN_FLIGHT = 2  # shards per actor: one at work, one waiting, so that the actor never idles
OBJECT_STORE_BYTES = 200 * 2**20  # captions and graphs only: image bytes never enter it


class Parser:
    """Parses captions. Stateless, so Ray may restart it."""

    def __init__(self, config: ExtractConfig) -> None:
        self._graphs = SceneGraphs.load(config.parser, config.rules)

    def parse(self, captions: Sequence[str]) -> Graphs:
        return self._graphs.parse(captions)


class Grounder:
    """Extracts shards: reads, has the captions parsed elsewhere, grounds, commits."""

    def __init__(self, store_url: str, config: ExtractConfig, parser: Any) -> None:
        self._store = Store(store_url)
        self._extractor = Extractor(config, lambda captions: parser.parse.remote(captions).future())

    def ready(self) -> bool:
        """Return once the models are loaded."""
        return True

    def commit(self, job: Job) -> dict[str, int]:
        return self._extractor.commit(self._store, job)


@dataclass
class Actors:
    """Starts grounding actors, the first ones and those that take a dead one's place."""

    store_url: str
    config: ExtractConfig
    gpus: float
    count: int
    parsers: list[Any]
    started: int = 0

    def all(self) -> list[Any]:
        return [self.one() for _ in range(self.count)]

    def one(self) -> Any:
        parser = self.parsers[self.started % len(self.parsers)]
        self.started += 1
        actor = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(Grounder)
        return actor.remote(self.store_url, self.config, parser)

    def stop(self) -> None:
        """Leave the cluster; a local Ray ends, and with it whatever is still at work."""
        ray.shutdown()


def start_actors(store_url: str, config: ExtractConfig, run: RunConfig, shards: int) -> Actors:
    """Connect to Ray (a local one unless an address is given) and start the parsing actors.

    Raises UserError where no cluster answers, or where it lacks what is asked for.
    """
    here = run.ray_address is None
    wants_gpu = config.device == "auto" or config.device.startswith("cuda")
    if here:
        import torch

        have_gpus = float(torch.cuda.device_count()) if wants_gpu else 0.0
    else:
        try:
            ray.init(address=run.ray_address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "a cluster with token authentication wants RAY_AUTH_MODE=token in the environment"
            raise UserError(f"no Ray cluster answers at {run.ray_address}: {error} ({hint})") from error
        have_gpus = float(ray.cluster_resources().get("GPU", 0)) if wants_gpu else 0.0
    gpus = run.gpus_per_actor if run.gpus_per_actor is not None else (1.0 if have_gpus else 0.0)
    if gpus > have_gpus:
        raise UserError(f"--gpus-per-actor {gpus:g}: {have_gpus:g} GPUs can be had; use 0 for the CPU")
    if gpus:
        fit = int(have_gpus / gpus)
    else:
        fit = (
            len(os.sched_getaffinity(0))
            if here
            else max(1, int(ray.cluster_resources().get("CPU", 1)) * 2 // 3)
        )
    count = max(1, min(run.workers or fit, shards))
    parse_count = run.parse_workers or ((count * 4) if gpus else (count + 1) // 2)
    if here:
        ray.init(
            num_cpus=count + parse_count,  # a count of actors, not of cores: every one of them is to start
            num_gpus=int(have_gpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
        )
    if config.device == "auto":
        config = replace(config, device="cuda" if gpus else "cpu")
    parser = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=1)(Parser)
    return Actors(store_url, config, gpus, count, [parser.remote(config) for _ in range(parse_count)])


@dataclass
class _Actor:
    """A grounding actor and what it has been given, oldest first."""

    handle: Any
    queue: deque[tuple[Any, Job | None]]  # (ref, job); the first ref asks "are you up?" and has no job


def run_on_ray(
    store: Store, todo: Sequence[Job], config: ExtractConfig, run: RunConfig, attempts: Attempts
) -> None:
    """Do every job; a shard that kills its actor is counted against that shard alone.

    Raises UserError where no cluster answers, an actor cannot start, or the store cannot be written to.
    """
    pending = deque(todo)
    start = start_actors(store.url, config, run, len(todo))
    try:
        actors = [_Actor(handle, deque([(handle.ready.remote(), None)])) for handle in start.all()]

        def failed(job: Job, why: str) -> None:
            if attempts.again(job, why):
                pending.append(job)

        stillborn = 0  # workers in a row that died before they were up
        while pending or any(actor.queue for actor in actors):
            for actor in actors:
                while pending and len(actor.queue) < IN_FLIGHT:
                    job = pending.popleft()
                    actor.queue.append((actor.handle.commit.remote(job), job))
            # An actor works in order, so only the first of its queue can be done.
            first = {actor.queue[0][0]: actor for actor in actors if actor.queue}
            done, _ = ray.wait(list(first), timeout=1.0)
            for ref in done:
                actor = first[ref]
                _, started = actor.queue.popleft()
                try:
                    statuses = ray.get(ref)
                    stillborn = 0
                    if started is not None:
                        attempts.done(started, statuses)
                except RayTaskError as error:
                    if isinstance(error.cause, UserError):
                        raise error.cause from None
                    if started is None:
                        raise
                    failed(started, str(error))
                except RayActorError as error:
                    if started is None:
                        stillborn += 1
                        if stillborn > run.retries:
                            last = str(error).strip().splitlines()[-1]
                            raise UserError(f"a worker cannot start: {last}") from error
                    else:
                        failed(started, f"the worker died: {error}")
                    # What waited behind the shard that killed the actor is not to blame.
                    pending.extendleft(waiting for _, waiting in reversed(actor.queue) if waiting is not None)
                    actor.handle = start.one()
                    actor.queue = deque([(actor.handle.ready.remote(), None)])
            attempts.progress.tick()
    finally:
        start.stop()
