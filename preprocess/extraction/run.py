"""Many shards: in process, or on Ray. The function called for one shard is the same."""

import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from macco.pipeline.errors import UserError
from macco.pipeline.merge import put_together
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.extraction.attempts import Attempts
from macco.preprocess.extraction.inputs import work_of
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.extraction.shard import Extractor, Job


@dataclass
class Summary:
    """What a run did."""

    skipped: int = 0
    committed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # shard -> why
    samples: dict[str, int] = field(default_factory=dict)  # status -> count, of this run
    seconds: float = 0.0


def extract_shards(
    store: Store, jobs: Sequence[Job], config: ExtractConfig, run: RunConfig, *, replace: bool = False
) -> Summary:
    """Do every job whose shard the store does not hold, or holds of less or otherwise (see inputs.py).

    Raises UserError where nothing further can succeed (the output cannot be written, an actor cannot
    start), and before anything is done for an input that is not to enter; a shard that fails after its retries
    is listed in the summary, and the others go on.
    """
    work = work_of(store, jobs, replace)
    todo, skipped = work.todo, work.skipped
    for name in store.staged():  # by a run that was killed
        store.unstage(name)
    store.sweep_tables()
    with _swept(store), RunProgress(len(jobs), skipped) as progress:
        attempts = Attempts(store, run.retries, progress, work.replacements)
        if not todo:
            pass  # not even the models are loaded
        elif run.workers == 0:
            _in_process(store, todo, config, attempts)
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported
            from macco.preprocess.extraction.on_ray import run_on_ray

            run_on_ray(store, todo, config, run, attempts)
        put_together(store)
        return Summary(
            skipped, progress.shards, attempts.given_up, dict(progress.samples), progress.seconds()
        )


@contextmanager
def _swept(store: Store) -> Iterator[None]:
    """Leave nothing of what workers were writing when they were killed, or the run interrupted."""
    try:
        yield
    finally:
        for folder in ("", *TABLES, "shards", "failed"):
            store.sweep(folder)


def _in_process(store: Store, todo: Sequence[Job], config: ExtractConfig, attempts: Attempts) -> None:
    extractor = Extractor(config)
    pending = deque(todo)
    while pending:
        job = pending.popleft()
        try:
            attempts.done(job, extractor.commit(store, job))
        except UserError:
            raise
        except Exception:
            if attempts.again(job, traceback.format_exc()):
                pending.appendleft(job)
