"""Many small files to few large ones, in a new store: quicker questions over everything."""

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store


def compact(store: Store, out: str, rows_per_file: int = 1_000_000) -> Store:
    """Copy a store into a new one at `out`, with about `rows_per_file` samples in a file.

    Each shard stays a row group of its own, so that reading one shard stays cheap. The copy is only read.
    Raises UserError if anything is at `out`.
    """
    copy = Store(out)
    if copy.fs.exists(copy.root):
        raise UserError(f"there is something at {out}: choose a new --out")
    copy = Store.create(out, store.description()["settings"])
    copy.mark_compacted()
    group: list[str] = []
    rows = 0
    for shard in sorted(store.committed()):
        group.append(shard)
        rows += store.shard(shard).get("samples", 0)
        if rows >= rows_per_file:
            copy.commit_compacted(group, store)
            group, rows = [], 0
    if group:
        copy.commit_compacted(group, store)
    return copy
