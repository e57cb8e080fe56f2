"""Many shards: in process, or on Ray. The function called for one shard is the same."""

import hashlib
import os
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.groundings import GROUNDINGS
from macco.pipeline.merge import put_together
from macco.pipeline.metrics import Sinks
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.extraction.attempts import Attempts
from macco.preprocess.extraction.inputs import Replacement, work_of
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.extraction.reground import begin
from macco.preprocess.extraction.shard import Extractor, Job, parse_nothing
from macco.preprocess.sources import Shard


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
    for name in store.staged():  # by a run that was killed
        store.unstage(name)
    store.sweep_tables()
    return _run(store, work.todo, work.skipped, config, run, work.replacements)


def reground_shards(store: Store, name: str, config: ExtractConfig, run: RunConfig) -> Summary:
    """Find the boxes of a further set in every committed shard that it lacks. Raises UserError as `extract_shards`."""
    lacking = begin(store, name, config)
    records = store.records()
    jobs = [Job(_known(shard, records[shard]), boxes=name) for shard in lacking]
    try:
        return _run(store, jobs, len(records) - len(jobs), config, changed(run, parse_workers=0), ())
    finally:
        store.sweep(f"{GROUNDINGS}/{name}")
        store.index_boxes(name)
        store.write_views()


def _known(name: str, record: Mapping[str, Any]) -> Shard:
    """A committed shard: of an imported one, that it is read by its rows alone is enough."""
    return Shard.of(record) or Shard(str(record.get("dataset", "")), name, "", "")


def _run(
    store: Store,
    todo: Sequence[Job],
    skipped: int,
    config: ExtractConfig,
    run: RunConfig,
    replacements: Sequence[Replacement],
) -> Summary:
    with (
        _swept(store),
        closing(_sinks(store, config, run, skipped)) as sinks,
        RunProgress(len(todo) + skipped, skipped, sinks) as progress,
    ):
        attempts = Attempts(store, run.retries, progress, replacements)
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


def _sinks(store: Store, config: ExtractConfig, run: RunConfig, skipped: int) -> Sinks:
    """TensorBoard and W&B, where they are asked for; there a store goes on under its own name."""
    folder, url = Path(run.tensorboard or "."), store.url.rstrip("/")
    name = f"{url.rpartition('/')[2][:60]}-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}"
    return Sinks(
        tensorboard=folder if run.tensorboard else None,
        wandb=run.wandb, folder=folder, name=name, step=skipped, config=asdict(config),
    )  # fmt: skip


@contextmanager
def _swept(store: Store) -> Iterator[None]:
    """Leave nothing of what workers were writing when they were killed, or the run interrupted."""
    try:
        yield
    finally:
        for folder in ("", *TABLES, "shards", "failed"):
            store.sweep(folder)


def _in_process(store: Store, todo: Sequence[Job], config: ExtractConfig, attempts: Attempts) -> None:
    extractor = Extractor(config, parse_nothing if todo[0].boxes is not None else None)
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
