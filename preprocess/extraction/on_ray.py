"""A run on Ray: the driver keeps all jobs and hands them to the workers that are up, until every job has ended."""

import time
from collections import deque
from collections.abc import Sequence

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.extraction.attempts import Attempts
from macco.preprocess.extraction.pace import Pace
from macco.preprocess.extraction.pool import Pool, Worker
from macco.preprocess.extraction.session import Session, session
from macco.preprocess.extraction.shard import Job

IN_FLIGHT = 2  # shards per worker: one at work, one waiting, so that it never idles
SILENCE = 10.0  # seconds that a worker may wait for room before the log says so


def run_on_ray(
    store: Store, todo: Sequence[Job], config: ExtractConfig, run: RunConfig, attempts: Attempts
) -> None:
    """Do every job; a shard that kills or hangs its worker is counted against that shard alone.

    Raises UserError where no cluster answers, no worker starts, or the store cannot be written to.
    """
    with session(config, run, len(todo)) as made:
        _Run(store, made, run, todo, attempts).to_its_end()


class _Run:
    def __init__(
        self, store: Store, made: Session, run: RunConfig, todo: Sequence[Job], attempts: Attempts
    ) -> None:
        self.run, self.attempts = run, attempts
        self.pending = deque(todo)
        self.pool = Pool(store.url, store.writer, made)
        self.pace = Pace(run.shard_timeout)
        self.last_up = 0.0  # when a worker was up
        self.checked, self.said, self.waits_since = False, "", 0.0

    def to_its_end(self) -> None:
        while self.pending or any(worker.jobs() for worker in self.pool.grounders):
            now = self.pace.tick()
            held = sum(len(worker.jobs()) for worker in self.pool.grounders)
            if self.pool.look(now, len(self.pending) + held):
                self.say_what_lacks()
                self.say_what_waits(now)
                self.give_up_waiting(now)
            self.give(now)
            for worker, ref in self.pool.done(timeout=1.0):
                self.answer(worker, ref, self.pace.tick())
            self.end_those_that_hang()
            self.attempts.progress.tick()

    def give(self, now: float) -> None:
        """Hand jobs out evenly: near the end nobody waits for a second one while others have none."""
        for held in range(IN_FLIGHT):
            for worker in self.pool.up():
                if self.pending and len(worker.calls) == held:
                    job = self.pending.popleft()
                    worker.ask(worker.handle.commit.remote(job, self.pool.parser()), now, job)

    def answer(self, worker: Worker, ref: object, now: float) -> None:
        """Take what a worker answers to the first of its calls, or what became of it."""
        job = worker.calls[0][1]
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            self._next(worker, now)
            self.failed(worker, job, error, now)
            return
        except ActorUnavailableError:
            # It may be dead, or cut off. The answer to another question will be why, and what it means for the job.
            time.sleep(1.0)
            worker.calls[0] = (worker.handle.ready.remote(), job)
            return
        except RayError as error:
            worker.calls.popleft()
            self.lost(worker, job, error, now)
            return
        took = now - worker.since
        self._next(worker, now)
        if not worker.node:
            self.pool.placed(worker, answer[0], now)
        elif job is None:
            self.pool.is_up(worker)
        elif answer is None:  # it was cut off for a while, and what it did meanwhile nobody knows
            self.take_back(worker, [*[job] * self.attempts.moved(job), *self.pool.stop(worker)])
        else:
            worker.errors = 0
            self.pace.done(took)
            self.attempts.done(job, answer)

    def failed(self, worker: Worker, job: Job | None, error: RayTaskError, now: float) -> None:
        """A worker is well, and what it was asked was not."""
        if isinstance(error.cause, UserError):
            raise error.cause from None
        if job is None:
            self.stillborn(worker, str(error), now)
            return
        worker.errors += 1
        if worker.errors > 1:  # two shards in a row: is it the worker (a GPU in a bad state)?
            self.take_back(worker, self.pool.stop(worker))
        self.again(job, str(error))

    def lost(self, worker: Worker, job: Job | None, error: RayError, now: float) -> None:
        """A worker is dead: by what it did, or with its node. What waited behind that job is not to blame."""
        left = "node has died" in str(error) or bool(worker.node and not self.pool.node_is_up(worker.node))
        if job is None:
            if left or worker.up:
                self.take_back(worker, self.pool.stop(worker))
            else:
                self.stillborn(worker, str(error), now)
            return
        self.take_back(worker, self.pool.stop(worker))
        if left:
            if self.attempts.moved(job):
                self.pending.appendleft(job)
        elif isinstance(error, OutOfMemoryError):
            self.again(job, f"{error}\nthe worker was ended: its node was out of memory")
        else:
            self.again(job, f"the worker died: {error}")

    def stillborn(self, worker: Worker, why: str, now: float) -> None:
        """A worker that died or failed before it was up; others that are up go on without it for a while."""
        self.pool.stop(worker)
        self.pool.stillborn += 1
        last = why.strip().splitlines()[-1]
        if self.pool.stillborn > self.run.retries:
            if not self.pool.up():
                raise UserError(f"a worker cannot start: {last}")
            self.attempts.progress.say(f"a worker cannot start, others go on: {last}")
            self.pool.not_before(now + 30.0 * self.pool.stillborn)

    def end_those_that_hang(self) -> None:
        now = self.pace.tick()
        limit = self.pace.limit()
        for worker in list(self.pool.grounders):
            if not worker.calls or not worker.node or now - worker.since <= limit:
                continue
            job = worker.calls[0][1]
            if job is not None:
                worker.calls.popleft()
                self.take_back(worker, self.pool.stop(worker))
                self.again(job, f"the worker hung: no end after {limit:.0f} s (--shard-timeout)")
        for worker in list(self.pool.parsers):
            # Half the time, so that the shard which waits for it is not what ends.
            if worker.up and worker.calls and now - worker.since > limit / 2:
                self.pool.stop(worker)
        for worker in [*self.pool.grounders, *self.pool.parsers]:
            if worker.node and not worker.up and now - worker.since > self.run.start_timeout:
                self.stillborn(worker, f"its models are not loaded after {self.run.start_timeout:.0f} s", now)

    def again(self, job: Job, why: str) -> None:
        if self.attempts.again(job, why):
            self.pending.append(job)

    def take_back(self, worker: Worker, jobs: Sequence[Job]) -> None:
        self.pending.extendleft(reversed(jobs))
        self.pool.look_now()

    def _next(self, worker: Worker, now: float) -> None:
        worker.calls.popleft()
        worker.since = now

    def say_what_lacks(self) -> None:
        """Log, before anything is done, what of that which was asked for the cluster does not hold."""
        lacks = self.pool.shortage()
        if lacks and not self.checked:
            self.attempts.progress.say(lacks)
        self.checked = True

    def say_what_waits(self, now: float) -> None:
        """Log what waits for what, once it has for a while, whenever that changes."""
        waiting = self.pool.waiting()
        if not waiting:
            self.said, self.waits_since = "", now
        elif waiting != self.said and now - self.waits_since > SILENCE:
            self.said = waiting
            self.attempts.progress.say(waiting)

    def give_up_waiting(self, now: float) -> None:
        if self.pool.up():
            self.last_up = now
        elif now - self.last_up > self.run.start_timeout:
            why = self.pool.waiting() or "none has loaded its models"
            raise UserError(
                f"no grounding worker is up after {now - self.last_up:.0f} s (--start-timeout): {why}"
            )
