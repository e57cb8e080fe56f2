"""The settings of the joint objectives."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """The joint encoder, what it sees, and its losses. Only objectives other than macco read it."""

    pretrained: str = ""  # VisualBERT weights, by name or folder; empty: random ones in the sizes below
    layers: int = 12
    width: int = 768
    heads: int = 12
    dropout: float = 0.1
    regions: Literal["boxes", "grid"] = "boxes"  # the store's boxes, or the image tower's patches
    count: int = 36  # regions of an image at most, the whole image being the first; grid: all patches, always
    box_score: float = 0.2  # boxes that score less are no regions
    tower: Literal["frozen", "trained"] = "frozen"  # frozen: regions are made once, and kept in the store
    negatives: int = 31  # for each anchor, as far as the batch has them
    offline: int = 0  # of them hard negative captions of the store's scene graphs (macco-train negatives)
    margin: float = 0.2
    weight: float = 1.0  # of the attention loss
    schedule: Literal["exp", "linear", "log", "constant"] = "exp"  # how that weight grows over training
    row_normalised: bool = False  # CACR's variant without a second softmax; of IAIS's size, and not CACR
    eval_store: str = ""  # a store of the benchmarks' images, whose boxes evaluation takes
