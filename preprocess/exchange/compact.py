"""Many small files to few large ones: quicker questions over everything."""

from contextlib import closing

from macco.pipeline.errors import UserError
from macco.pipeline.merge import copy, put_together
from macco.pipeline.store import Store


def compact(store: Store, out: str | None = None) -> Store:
    """Put the rows of a store into few large files: in the store itself, or as a new one at `out`.

    Every row stays as it is, and the store can be extended as before. A kill leaves a store whole, and of a new one no
    store. Raises UserError if anything is at `out`, or where nothing can be written.
    """
    store.require_whole(all_boxes=out is not None)
    settings = store.description()["settings"]
    if out is None:
        with closing(Store.create(store.url, settings)) as own:
            own.sweep_tables()
            put_together(own, everything=True)
        return store
    try:
        with closing(Store.copy(out)) as made:
            copy(store, made)
            made.finish_copy(settings)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error}; give the command again") from error
    return made
