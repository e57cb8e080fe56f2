"""The settings of the joint objectives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from macco.pipeline.errors import UserError
from macco.train.config import Count, ObjectiveSettings, Positive, Share, Weight

if TYPE_CHECKING:
    from macco.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class JointConfig(ObjectiveSettings):
    """The joint encoder, what it sees, and its losses."""

    group: ClassVar[str] = "joint"
    product: ClassVar[str] = "joint.json"

    pretrained: str = ""  # VisualBERT weights, by name or folder; empty: random ones in the sizes below
    layers: Positive = 12
    width: Positive = 768
    heads: Positive = 12
    dropout: Share = 0.1
    regions: Literal["boxes", "grid"] = "boxes"  # the store's boxes, or the image tower's patches
    count: Positive = (
        36  # regions of an image at most, the whole image being the first; grid: all patches, always
    )
    box_score: Share = 0.2  # boxes that score less are no regions
    tower: Literal["frozen", "trained"] = "frozen"  # frozen: regions are made once, and kept in the store
    negatives: Positive = 31  # for each anchor, as far as the batch has them
    offline: Count = 0  # of them hard negative captions of the store's scene graphs (macco-train negatives)
    margin: Weight = 0.2
    weight: Weight = 1.0  # of the attention loss
    schedule: Literal["exp", "linear", "log", "constant"] = "exp"  # how that weight grows over training
    row_normalised: bool = False  # CACR's variant without a second softmax; of IAIS's size, and not CACR
    eval_detector: str = ""  # whose boxes of it, where it has those of several
    eval_store: str = ""  # a store of the benchmarks' images, whose boxes evaluation takes

    @property
    def hard_negatives(self) -> int:
        return self.offline

    @property
    def crops(self) -> bool:
        return self.tower == "trained"

    def check(self, config: "TrainConfig") -> None:
        if config.ema:
            raise UserError("ema averages a CLIP's weights: leave it 0 for a joint objective")
        if config.contrast == "sigmoid":
            raise UserError("a joint objective contrasts no features: leave contrast as it is")
        if config.distill.weight:
            raise UserError("distill.weight keeps a CLIP near its start: leave it 0 for a joint objective")
        if config.interpolate < 1:
            raise UserError("interpolate mixes a CLIP with its start: leave it 1 for a joint objective")
        if self.offline > self.negatives:
            raise UserError("joint.offline is more than joint.negatives, of which they are a part")
        if config.data.batch_size < 2:
            raise UserError("data.batch_size is 1: in-batch negatives need at least 2")


SETTINGS = JointConfig
