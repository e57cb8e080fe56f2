"""The rows of some shards of a store: the files that hold them, and no others."""

from collections.abc import Collection, Sequence

from macco.pipeline.commits import parts_of
from macco.pipeline.schema import NEGATIVES, TABLES
from macco.pipeline.store import Store
from macco.pipeline.views import scan


class Tables:
    """Where a store's shards lie. A store of ten thousand files is not opened whole for a few rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files = store.commits().files

    def file(self, shard: str) -> str:
        """The stem of the files that hold a shard."""
        return self._files[shard]

    def of(self, shards: Sequence[str], negatives: Collection[str] = ()) -> dict[str, str]:
        """SQL of the rows of some shards, by the table's name; of their negatives, too, where any has some."""
        parts = parts_of(self._files, shards)
        found = {name: self._store.scan(name, parts, self._files) for name in TABLES}
        if wrong := [shard for shard in shards if shard in negatives]:
            found[NEGATIVES] = scan(self._store.url, NEGATIVES, wrong)
        return found
