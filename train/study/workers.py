"""Processes that do a study's jobs. Each starts once: loading PyTorch takes longer than a short run."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Final, Self

import torch

from macco.pipeline.errors import UserError
from macco.train.study.trial import Trial, run_trial

LOOK: Final = 0.5  # seconds between looks at whether to stop

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Done:
    """What became of a job; `error` is empty where it is finished."""

    job: Trial
    error: str = ""


class Workers:
    """`processes` workers, or with 0 this process itself."""

    def __init__(self, processes: int, stop: Stop) -> None:
        self.stop = stop
        self._pool = None
        if processes:
            context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
            self._asked = context.Event()
            self._pool = ProcessPoolExecutor(processes, context, _begin, (self._asked, processes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Let the workers end what they do, which is little where they were asked to stop."""
        if self._pool is not None:
            self._asked.set()
            self._pool.shutdown(cancel_futures=True)

    def do(self, jobs: Iterable[Trial]) -> Iterator[Done]:
        """Do jobs in this order; yields each as it ends. Ends early where it is asked to stop."""
        if self._pool is None:
            for job in jobs:
                done = None if self.stop() else _attempt(job, self.stop)
                if done is None:
                    return
                yield done
            return
        waiting: set[Future[Done | None]] = {self._pool.submit(_in_worker, job) for job in jobs}
        while waiting:
            ended, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
            if self.stop():
                self._asked.set()
                for future in waiting:
                    future.cancel()
            for future in ended:
                if not future.cancelled() and (done := _result(future)) is not None:
                    yield done


def _result(future: "Future[Done | None]") -> Done | None:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (is memory full?): the same command goes on, with fewer --jobs if need be"
        ) from error


def _attempt(job: Trial, stop: Stop) -> Done | None:
    """None where it was stopped. A job that fails costs its own figures alone."""
    try:
        return Done(job) if run_trial(job, stop) else None
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return Done(job, f"{kind}{' '.join(str(error).split())}")


_asked: Event


def _begin(asked: Event, processes: int) -> None:
    global _asked
    _asked = asked
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # the parent is told, and tells
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(job: Trial) -> Done | None:
    return None if _asked.is_set() else _attempt(job, _asked.is_set)
