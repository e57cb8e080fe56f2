"""The formats that a store is written in for other programs."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

from macco.pipeline.store import Store

# Of (store, out, threshold, log): the number of rows written.
Writer = Callable[[Store, Path, float, Callable[[str], None]], int]
FORMATS: Final = {
    "coco": "coco.export_coco",
    "fiftyone": "coco.export_fiftyone",
    "macco-tsv": "tsv.export_tsv",
    "hf": "hugging_face.export_hugging_face",
}


def writer(format: str) -> Writer:
    """The function that writes one of FORMATS."""
    module, name = FORMATS[format].split(".")
    found: Writer = getattr(import_module(f"macco.preprocess.exchange.{module}"), name)
    return found
