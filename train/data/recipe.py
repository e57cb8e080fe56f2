"""What a sample of the store becomes in a batch: image and caption here, more under an objective."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from macco.pipeline.tokens import Tokenize
from macco.train.config import MaskConfig
from macco.train.data.batch import Batch
from macco.train.data.crops import cut, decode, draw_crop, read, resize
from macco.train.data.masks import Crop
from macco.train.data.room import room
from macco.train.data.rows import Sample
from macco.train.data.uncut import Uncut


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Makes a batch's part of a sample, and the batch of the parts. Workers get a copy."""

    tokenize: Tokenize
    image_size: int
    on_device: bool = False  # crops are resized there, whatever else is done to samples here
    full_length: bool = False  # pad captions to the context length, not to the batch's longest
    negatives: int = 0  # hard negatives per caption
    masks: MaskConfig = field(default_factory=MaskConfig)  # by whose kinds and score samples are selected

    @property
    def box_score(self) -> float | None:
        """The least score of the image's boxes that samples bring; None: they bring none."""
        return None

    @property
    def reads_units(self) -> bool:
        """Whether samples bring their captions' units."""
        return False

    @property
    def reads_siblings(self) -> bool:
        """Whether samples bring other captions that say the same."""
        return False

    @abstractmethod
    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        """One sample's part of a batch; raises BrokenImageError."""

    @abstractmethod
    def collate(self, made: list[Any]) -> Batch:
        """What `make` gave for each sample as a batch."""

    def crop(self, sample: Sample, random: np.random.Generator) -> tuple[Any, Crop]:
        """A random crop of the sample's image, and where it was cut.

        It is uint8 [3, S, S] or, where the device is to resize it, [rows, columns, 3].
        """
        image = decode(read(sample.source, sample.member, sample.offset, sample.size), self.image_size)
        crop = draw_crop(image.shape[1], image.shape[0], random)
        pixels = cut(image, crop)
        return pixels if self.on_device else resize(pixels, self.image_size), crop

    def hard_negatives(self, sample: Sample) -> list[Any]:
        """Token ids of the sample's hard negatives, None where there is none."""
        return [None if caption is None else self.tokenize(caption).ids for caption in sample.negatives]

    def pairs(
        self,
        names: Sequence[tuple[str, int]],
        images: Sequence[Any],
        tokens: Sequence[Any],
        hard: Sequence[Any],
    ) -> dict[str, Any]:
        """What every batch has, by its names: of sample ids with image numbers, crops, token ids, hard negatives."""
        ids, own = zip(*names, strict=True)
        negatives, valid = self.pad_negatives(tokens, hard)
        return {
            "images": self.stack(images),
            "tokens": self.pad(tokens),
            "ids": list(ids),
            "negatives": negatives,
            "negative_valid": valid,
            **self.pair_ids(own, tokens, hard),
        }

    def stack(self, images: Sequence[Any]) -> Any:
        """The images of a batch, or what the device makes them of."""
        if self.on_device:
            return Uncut.of(images, self.image_size)
        return torch.from_numpy(np.stack(images, out=room((len(images), *images[0].shape))))

    def pair_ids(
        self, images: Sequence[int], tokens: Sequence[Any], negatives: Sequence[Any]
    ) -> dict[str, Any]:
        """The ids of a batch's images, captions and hard negatives, by the batch's names for them."""
        found: dict[str, Any] = {
            "image_ids": torch.tensor(images),
            "caption_ids": torch.tensor([number(one) for one in tokens]),
        }
        if len(negatives[0]):
            made = [[0 if one is None else number(one) for one in of_sample] for of_sample in negatives]
            found["negative_ids"] = torch.tensor(made)
        return found

    def pad_negatives(
        self, tokens: Sequence[Any], wrong: Sequence[Any]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Hard negatives [B, K, L'] and which exist [B, K]."""
        kinds = len(wrong[0])
        if not kinds:
            return None, None
        exist = [one is not None for of_sample in wrong for one in of_sample]
        # Where there is none, the caption itself stands, and does not count.
        flat = [
            own if one is None else one
            for own, of_sample in zip(tokens, wrong, strict=True)
            for one in of_sample
        ]
        shape = (len(tokens), kinds)
        return self.pad(flat).view(*shape, -1), torch.tensor(exist).view(shape)

    def pad(self, tokens: Sequence[Any]) -> Tensor:
        """Token ids of captions, [N, L] int64."""
        length = self.tokenize.context if self.full_length else max(map(len, tokens))
        padded = np.full((len(tokens), length), self.tokenize.padding, np.int64)
        padded[np.arange(length) < np.array([[len(one)] for one in tokens])] = np.concatenate([*tokens])
        return torch.from_numpy(padded)


@dataclass(frozen=True, kw_only=True)
class Pairs(Recipe):
    """Crops and captions, each with the hard negatives that it has."""

    def make(self, sample: Sample, random: np.random.Generator) -> Any:
        image, _ = self.crop(sample, random)
        hard = self.hard_negatives(sample)
        return (sample.id, sample.image), image, self.tokenize(sample.caption).ids, hard

    def collate(self, made: list[Any]) -> Batch:
        names, images, tokens, hard = zip(*made, strict=True)
        return Batch(**self.pairs(names, images, tokens, hard))


def number(tokens: Any) -> int:
    """A number for a caption's token ids: captions that the model cannot tell apart have one."""
    return int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), signed=True)
