"""The settings of DeGLA."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from macco.pipeline.errors import UserError
from macco.train.config import ObjectiveSettings, Positive, Weight

if TYPE_CHECKING:
    from macco.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DeglaConfig(ObjectiveSettings):
    """Weights of the losses beside NegCLIP's contrast (0 turns one off); the paper's. Its third is distill.weight."""

    group: ClassVar[str] = "degla"

    text_grounded: Weight = (
        0.1  # the teacher's caption before the own hard negatives, for the student's caption
    )
    image_grounded: Weight = 0.1  # the own caption before the own hard negatives, for the image
    negatives: Positive = 4  # kinds of macco-train negatives
    duplicate_negatives: bool = False  # other captions of an image, and equal ones, are wrong answers
    reference: bool = False  # the public code's text_grounded: other captions' negatives in place of the own

    @property
    def hard_negatives(self) -> int:
        return self.negatives

    def check(self, config: "TrainConfig") -> None:
        if self.text_grounded and not config.distill.weight:
            raise UserError(
                "degla.text_grounded asks a teacher: set distill.weight (0.005), or degla.text_grounded=0"
            )


SETTINGS = DeglaConfig
