"""macco: masked compositional concept modelling for CLIP, from Python.

    import macco

    store = macco.open_store("store")                     # what macco-prep extract wrote
    macco.query(store, "SELECT lemma, count(*) AS n FROM concepts GROUP BY 1 ORDER BY 2 DESC LIMIT 9").to_pandas()
    macco.connect(store).sql("FROM triplets LIMIT 9")     # DuckDB itself, with the views of docs/sql.md
    macco.parse(["A red dog is sitting on a small sofa."])  # the scene graph of each caption
    loader = macco.open_training_data("store", tokenizer, image_size=224, patch_size=32, batch_size=256)
    for batch in loader: ...                              # images, tokens and masks, for a loop of your own
    macco.losses.clip_contrast                            # each loss is a function of tensors
    model, preprocess, tokenizer = macco.load_clip("run") # a run, an exported folder, or any name of open_clip
    macco.export_open_clip(model, "folder", macco.architecture("ViT-B-32")); macco.export_hugging_face(model, "folder")

The commands (macco-prep, macco-train) do all the rest. What is not named here may change between versions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from macco.pipeline.errors import UserError
    from macco.pipeline.query import connect, query
    from macco.pipeline.schema import Concept, Span
    from macco.pipeline.store import Store, open_store
    from macco.preprocess.graph.parse import parse
    from macco.train import losses
    from macco.train.clip.load import architecture, load_clip
    from macco.train.clip.write import export_hugging_face, export_open_clip
    from macco.train.config import MaskConfig
    from macco.train.objectives.macco.batches import open_training_data

__all__ = [
    "Concept",
    "MaskConfig",
    "Span",
    "Store",
    "UserError",
    "architecture",
    "connect",
    "export_hugging_face",
    "export_open_clip",
    "load_clip",
    "losses",
    "open_store",
    "open_training_data",
    "parse",
    "query",
]

# Where each name lives: imported when it is first asked for, so that `import macco` takes no time.
_HOME = {
    "Concept": "pipeline.schema",
    "MaskConfig": "train.config",
    "Span": "pipeline.schema",
    "Store": "pipeline.store",
    "UserError": "pipeline.errors",
    "architecture": "train.clip.load",
    "connect": "pipeline.query",
    "export_hugging_face": "train.clip.write",
    "export_open_clip": "train.clip.write",
    "load_clip": "train.clip.load",
    "open_store": "pipeline.store",
    "open_training_data": "train.objectives.macco.batches",
    "parse": "preprocess.graph.parse",
    "query": "pipeline.query",
}


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("macco.train.losses")
    if name not in _HOME:
        raise AttributeError(f"module 'macco' has no attribute {name!r}")
    return getattr(import_module(f"macco.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
