"""Many shards: in process, or on Ray. The function called for one shard is the same."""

import os
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.sources import Shard

IN_FLIGHT = 2  # shards per actor: one at work, one waiting, so that the actor never idles


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where the work is done, and how stubbornly."""

    workers: int | None = None  # grounding actors; 0: in this process, without Ray; None: as many as fit
    parse_workers: int | None = None  # parsing actors; None: one for every two grounding actors
    gpus_per_actor: float | None = None  # None: 1 where there are GPUs and the device may be one, else 0
    ray_address: str | None = None  # None: Ray on this machine, for this run
    retries: int = 2  # a shard is given up after this many further tries

    def check(self) -> None:
        """Raise UserError for an impossible value."""
        for name in ("workers", "parse_workers", "gpus_per_actor", "retries"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}: it is not negative")


@dataclass(frozen=True)
class Job:
    """One shard to do, or, of a committed shard, the rows to do again."""

    shard: Shard
    redo: frozenset[int] | None = None


@dataclass
class Summary:
    """What a run did."""

    skipped: int = 0
    committed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # shard -> why
    samples: dict[str, int] = field(default_factory=dict)  # status -> count, of this run
    seconds: float = 0.0


def extract_shards(store: Store, jobs: Sequence[Job], config: ExtractConfig, run: RunConfig) -> Summary:
    """Do every job whose shard the store has not committed, or whose rows are to be done again.

    Raises UserError where nothing further can succeed (the output cannot be written, an actor cannot
    start); a shard that fails after its retries is listed in the summary, and the others go on.
    """
    committed = store.committed()
    todo = []
    for job in jobs:
        name, url = job.shard.name, job.shard.url
        if name not in committed or job.redo is not None:
            todo.append(job)
        elif (was := store.shard(name)["input"]["url"]) != url:
            raise UserError(
                f"shard {name} of {store.url} was extracted from {was}, not {url}: use another --out"
            )
    summary = Summary(skipped=len(jobs) - len(todo))
    with RunProgress(len(jobs), summary.skipped) as progress:
        give_up = _recorder(store, summary, progress)
        if run.workers == 0:
            _in_process(store, todo, config, run, progress, give_up)
        elif todo:
            _on_ray(store, todo, config, run, progress, give_up)
        summary.committed, summary.samples = progress.shards, dict(progress.samples)
        summary.seconds = progress.seconds()
    return summary


GiveUp = Callable[[Job, str, int], None]


def _recorder(store: Store, summary: Summary, progress: RunProgress) -> GiveUp:
    def give_up(job: Job, why: str, tries: int) -> None:
        name = job.shard.name
        summary.failed[name] = why.strip().rsplit("\n", 1)[-1]
        store.fail(name, {"shard": name, "input": asdict(job.shard), "tries": tries, "error": why})
        progress.gave_up()

    return give_up


def _in_process(
    store: Store,
    todo: Sequence[Job],
    config: ExtractConfig,
    run: RunConfig,
    progress: RunProgress,
    give_up: GiveUp,
) -> None:
    from macco.preprocess.extraction.shard import Extractor

    extractor = Extractor(config)
    for job in todo:
        for attempt in range(1, run.retries + 2):
            try:
                progress.committed(extractor.commit(store, job.shard, job.redo))
                break
            except UserError:
                raise
            except Exception:
                if attempt > run.retries:
                    give_up(job, traceback.format_exc(), attempt)


@dataclass
class _Actor:
    """A grounding actor and what it has been given, oldest first."""

    handle: Any
    queue: deque[tuple[Any, Job | None]]  # (ref, job); the first ref asks "are you up?" and has no job


def _on_ray(
    store: Store,
    todo: Sequence[Job],
    config: ExtractConfig,
    run: RunConfig,
    progress: RunProgress,
    give_up: GiveUp,
) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    from macco.preprocess.extraction.on_ray import start_actors

    pending = deque(todo)
    tries: dict[str, int] = {}  # only of shards that failed at least once
    start = start_actors(store.url, config, run, len(todo))
    try:
        actors = [_Actor(handle, deque([(handle.ready.remote(), None)])) for handle in start.all()]

        def failed(job: Job, why: str) -> None:
            name = job.shard.name
            tries[name] = tries.get(name, 0) + 1
            if tries[name] <= run.retries:
                pending.append(job)
            else:
                give_up(job, why, tries.pop(name))

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
                        progress.committed(statuses)
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
            progress.tick()
    finally:
        start.stop()
