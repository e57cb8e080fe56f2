"""Which shards of a run failed, however it is driven: to be tried again, or given up."""

from macco.pipeline.store import Store
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.extraction.shard import Job


class Attempts:
    """Counts tries. A shard is given up, and noted in the store, after `retries` further ones."""

    def __init__(self, store: Store, retries: int, progress: RunProgress) -> None:
        self.store = store
        self.retries = retries
        self.progress = progress
        self.given_up: dict[str, str] = {}  # shard -> why
        self._tries: dict[str, int] = {}  # only of shards that failed at least once

    def again(self, job: Job, why: str) -> bool:
        """A try has failed. Tell whether there is to be another one."""
        name = job.shard.name
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        if tries <= self.retries:
            return True
        del self._tries[name]
        self.given_up[name] = why.strip().rsplit("\n", 1)[-1]
        self.store.fail(name, {"shard": name, "input": job.shard.record(), "tries": tries, "error": why})
        self.progress.gave_up()
        return False
