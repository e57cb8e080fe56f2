"""Which shards of a run are done and which failed, however it is driven: to be tried again, or given up."""

from collections.abc import Mapping, Sequence

from macco.pipeline.store import Store
from macco.preprocess.extraction.inputs import Replacement
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.extraction.shard import Job


class Attempts:
    """Counts tries. A shard is given up, and noted in the store, after `retries` further ones.

    Shards that replace others take their places once the last of those that belong together is written.
    """

    def __init__(
        self, store: Store, retries: int, progress: RunProgress, replacements: Sequence[Replacement] = ()
    ) -> None:
        self.store = store
        self.retries = retries
        self.progress = progress
        self.given_up: dict[str, str] = {}  # shard -> why
        self._tries: dict[str, int] = {}  # only of shards that failed at least once

        self._replacements = {name: one for one in replacements for name in one.shards}

    def done(self, job: Job, statuses: Mapping[str, int]) -> None:
        """A try has succeeded; `statuses` counts the shard's samples."""
        one = self._replacements.get(job.shard.name)
        if one is not None:
            one.left.discard(job.shard.name)
            if not one.left:
                self.store.replace(one.shards, one.gone)
        self.progress.committed(statuses)

    def again(self, job: Job, why: str) -> bool:
        """A try has failed. Tell whether there is to be another one."""
        name = job.shard.name
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        if tries <= self.retries:
            return True
        del self._tries[name]
        self.given_up[name] = why.strip().rsplit("\n", 1)[-1]
        if not job.stage:  # what was to be replaced stays
            self.store.fail(name, {"shard": name, "input": job.shard.record(), "tries": tries, "error": why})
        self.progress.gave_up()
        return False
