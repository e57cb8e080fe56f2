"""The settings of MACCO."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from macco.pipeline.errors import UserError
from macco.train.config import Count, ObjectiveSettings, Positive, Weight

if TYPE_CHECKING:
    from macco.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Method(ObjectiveSettings):
    """What is optimised: the weights of the losses (0 turns one off and skips its work) and the switches."""

    group: ClassVar[str] = "method"

    contrast: Weight = 1.0
    mca: bool = True  # masked samples in the contrast; False: CLIP's own loss
    mir: Weight = 0.1
    mlm: Weight = 20.0
    mim: Weight = 250.0
    negatives: Count = 0  # hard negatives per caption, more candidates for each image (NegCLIP)
    imc: Weight = (
        0.0  # CE-CLIP's intra-modal contrast and cross-modal ranking, where there are hard negatives
    )
    cmr: Weight = 0.0
    margin_limit: Weight = 5.0  # of the ranking's adaptive margins, on the scaled similarity
    stop_gradient: bool = True  # predictors do not train the tower that shows them the other modality's image
    injection: bool = True  # of the pooled feature into tokens
    normalise_pixels: bool = True
    freeze: Literal["", "image", "text"] = ""  # the tower to leave as it is
    text_depth: Positive = 2  # predictor blocks; 4 and 6 in the released B/16 and L/14
    image_depth: Positive = 3
    heads: Count = 0  # of the predictors; 0: one per 64 of the joint width
    congruence: Weight = 0.0  # of the towers' attention with each other's (see attention.py)
    congruence_kind: Literal["cacr", "iais-singular", "iais-distributed", "row-normalised"] = "cacr"
    anchors: Literal["all", "full"] = (
        "all"  # full: masked samples are wrong answers only, never anchors (MCA)
    )
    # Whether other captions of an image, and equal captions, are wrong answers, as in the public code.
    duplicate_negatives: bool = False
    reference: bool = (
        False  # the public code's numerics: padding to the context length, which predictors attend to
    )

    @property
    def masked_views(self) -> bool:
        """Whether masked samples take part in a contrastive loss."""
        return bool((self.contrast and self.mca) or self.mir)

    @property
    def hard_negatives(self) -> int:
        return self.negatives

    @property
    def draws_masks(self) -> bool:
        return True

    def check(self, config: "TrainConfig") -> None:
        if self.congruence and config.compile:
            raise UserError(
                "method.congruence listens to blocks that compile=true closes: leave one of them off"
            )
        if config.lora.rank and (self.freeze or self.congruence):
            raise UserError("lora.rank does not go together with method.freeze or method.congruence")
        if not (self.contrast or self.mir or self.mlm or self.mim):
            raise UserError(
                "every loss is off: set one of method.contrast, method.mir, method.mlm, method.mim"
            )


SETTINGS = Method
