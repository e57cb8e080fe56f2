"""Whose boxes a run reads, where a store has those of several detectors."""

from macco.pipeline.store import Store
from macco.train.config import TrainConfig
from macco.train.data.selection import Selection


def detector_of(store: Store, config: TrainConfig, where: str, *, reads_boxes: bool) -> str:
    """What `Store.choose_boxes` is to be told: as configured, or the store's own where nothing depends on the choice.

    Empty: somebody has to choose, if there are several. where: the samples that are read of this store.
    """
    several = bool(store.sets())
    if not several and store.url != Store(config.data.store).url:
        return ""  # a further store has its own alone
    if config.data.detector or not several or reads_boxes:
        return config.data.detector
    selection = Selection.of(where, config.masks, config.data.keep)
    return "" if selection.drops_by_boxes else store.detector


def own_boxes(config: TrainConfig) -> str:
    """Whose boxes a run read that was begun with this configuration: the store's own, where it named none."""
    return config.data.detector or Store.open(config.data.store).detector
