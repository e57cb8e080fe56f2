"""The settings of READ-CLIP."""

from dataclasses import dataclass
from typing import ClassVar

from macco.train.config import Count, ObjectiveSettings, Positive, Share, Weight


@dataclass(frozen=True, kw_only=True)
class ReadConfig(ObjectiveSettings):
    """Weights of the losses beside NegCLIP's contrast (0 turns one off and skips its work); the paper's."""

    group: ClassVar[str] = "read"

    reconstruction: Weight = (
        0.1  # another caption of the image, written by the decoder from this one's vector
    )
    alignment: Weight = 0.5  # another caption of the image, or a paraphrase, before all others
    negatives: Count = 2  # kinds of macco-train negatives that are further candidates: the swaps
    decoder: str = "google/t5-v1_1-large"  # a T5 by name or folder; it stays as it is, and in no checkpoint
    tokenizer: str = ""  # of the decoder; empty: the one that lies with it
    label_length: Positive = 77  # tokens of a written caption at most
    dropout: Share = 0.0  # of the decoder; the public code leaves T5's 0.1 on
    # Whether other captions of an image, and equal captions, are wrong answers, as in the public code.
    duplicate_negatives: bool = False

    @property
    def hard_negatives(self) -> int:
        return self.negatives


SETTINGS = ReadConfig
