"""Which shards of a run are done and which failed, however it is driven: to be tried again, or given up."""

from collections.abc import Mapping, Sequence

from macco.pipeline.errors import UserError
from macco.pipeline.merge import LOOSE, put_together
from macco.pipeline.store import Store
from macco.preprocess.extraction.inputs import Replacement
from macco.preprocess.extraction.progress import RunProgress
from macco.preprocess.extraction.shard import Job

MOVES = 10  # tries of a shard that may end with the node that it is on: a shard could be what ends nodes


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
        self._moves: dict[str, int] = {}  # likewise of those whose node left
        self._since = 0  # shards done since files were put together
        self._replacements = {name: one for one in replacements for name in one.shards}

    def done(self, job: Job, statuses: Mapping[str, int]) -> None:
        """A try has succeeded; `statuses` counts the shard's samples."""
        one = self._replacements.get(job.shard.name)
        if one is not None:
            one.left.discard(job.shard.name)
            if not one.left:
                self.store.replace(one.shards, one.gone)
        if self.progress.asks_for_seconds and job.boxes is None and not job.stage:
            self.progress.took(self.store.shard(job.shard.name)["seconds"])
        self.progress.committed(statuses)
        self._since += 1
        if self._since >= LOOSE:
            self._since = 0
            put_together(self.store)

    def again(self, job: Job, why: str) -> bool:
        """A try has failed. Tell whether there is to be another one."""
        name = job.shard.name
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        last = why.strip().rsplit("\n", 1)[-1]
        if tries <= self.retries:
            self.progress.say(f"shard {name} is tried again, {tries} of {self.retries}: {last}")
            return True
        self._give_up(job, why, tries)
        return False

    def moved(self, job: Job) -> bool:
        """The node left that a shard was being done on, which is not its fault. Tell whether to do it elsewhere."""
        name = job.shard.name
        moves = self._moves[name] = self._moves.get(name, 0) + 1
        if moves <= MOVES:
            return True
        self._give_up(job, f"its node was lost, {moves} times", moves)
        return False

    def _give_up(self, job: Job, why: str, tries: int) -> None:
        name = job.shard.name
        self._tries.pop(name, None)
        self.given_up[name] = why.strip().rsplit("\n", 1)[-1]
        if not job.stage and job.boxes is None:  # what was to be replaced stays
            record = {"shard": name, "input": job.shard.record(), "tries": tries, "error": why}
            try:
                self.store.fail(name, record)
            except OSError as error:
                raise UserError(f"cannot write to {self.store.url}: {error}") from error
        self.progress.gave_up()
