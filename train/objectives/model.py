"""What the loop and the optimizer see of a model under an objective."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import ClipImage, Text, TimmImage, image_tower, pixel_statistics, wide
from macco.train.config import DistillConfig
from macco.train.data.batch import Batch
from macco.train.distributed import ranks
from macco.train.losses.distillation import distillation
from macco.train.objectives.teacher import Teacher

MAX_LOGIT_SCALE = math.log(100)
BIAS = -10.0  # that SigLIP's training starts from


class Model(nn.Module, ABC):
    """An open_clip model with what an objective adds to it. Sizes are read from the model.

    The open_clip model's parameters have names that begin with "clip."; all others are new with the objective.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self._beside: list[nn.Module] = []
        self._teacher: list[Teacher] = []  # one, where there is one
        self.shared_weights: dict[str, float] = {}  # of losses that any objective may have beside its own
        self.clip: Any = clip
        self.sigmoid = False
        self.logit_bias: nn.Parameter | None = None
        self.text = Text(clip)
        visual: Any = clip.visual
        self.image = image_tower(visual)
        mean, std = pixel_statistics(visual)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def beside(self, module: nn.Module) -> Callable[..., Any]:
        """Keep a module that nothing trains: it moves with the model, but is in no state, optimizer or export.

        Returns its forward pass.
        """
        self._beside.append(module.requires_grad_(False))
        return module.__call__

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self._beside:
            module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def image_size(self) -> int:
        """Pixels of a side of the images that the tower takes. Raises UserError where they are not square."""
        (rows, columns), patch = self.image.grid, self.image.patch
        if rows != columns or patch[0] != patch[1]:
            raise UserError("the loader cuts square images of square patches, unlike this model's")
        return rows * patch[0]

    def pixels(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S]: uint8 is normalised here, on the device; floats are taken as they are."""
        if images.is_floating_point():
            return images
        return (images - self.get_buffer("pixel_mean")) / self.get_buffer("pixel_std")

    def after_step(self) -> None:
        """Called after each optimizer step."""

    def teach(self, config: DistillConfig) -> None:
        """Give the model a teacher: the CLIP as it is now. One that follows it is in the model's state."""
        averaged = config.teacher == "averaged"
        teacher = Teacher(self.clip, config.decay if averaged else 1.0)
        self._teacher = [teacher]
        if averaged:
            self.teacher = teacher
        else:
            self.beside(teacher)
        self.shared_weights["distillation"] = config.weight

    def follow(self) -> None:
        """Called after each optimizer step: a teacher that follows does."""
        for teacher in self._teacher:
            teacher.follow(self.clip)

    def taught(self, batch: Batch, features: Mapping[str, Tensor], whole: Any = None) -> dict[str, Tensor]:
        """The losses that a teacher gives, unweighted, where there is one; sums of micro-batches are this rank's.

        features: normalised, "image" and "text" [b, D], and where there are hard negatives "negatives" [b, K, D];
        whole: what there is to know of the whole step.
        """
        losses: dict[str, Tensor] = {}
        for teacher in self._teacher:
            tokens, there = batch.tokens, torch.ones_like(batch.tokens[:, :1], dtype=torch.bool)
            texts, valid = features["text"][:, None], batch.negative_valid
            if "negatives" in features and batch.negatives is not None and valid is not None:
                tokens = self.text.together(tokens, batch.negatives.flatten(0, 1))
                texts, there = torch.cat([texts, features["negatives"]], 1), torch.cat([there, valid], 1)
            image, found = teacher(self.pixels(batch.images), tokens)
            count = len(batch)
            made = found[count:].view(count, texts.shape[1] - 1, found.shape[-1])
            taught = torch.cat([found[:count, None], made], 1)
            with torch.autocast(image.device.type, enabled=False):
                losses |= self.under_teacher(features["image"], texts, image, taught, there, whole)
        return losses

    def under_teacher(
        self,
        image: Tensor,
        texts: Tensor,
        teacher_image: Tensor,
        teacher_texts: Tensor,
        there: Tensor,
        whole: Any,
    ) -> dict[str, Tensor]:
        """The losses of features with a teacher's; shapes as in `losses.distillation`."""
        apart = distillation(image, texts, teacher_image, teacher_texts, there)
        return {"distillation": apart * ranks.world()}  # a sum over all ranks, of which the mean is taken

    def scale(self) -> Tensor:
        """The factor on the cosine, a scalar in float32 or better."""
        return wide(self.clip.logit_scale).exp().squeeze()

    def use_sigmoid(self, start: float = BIAS) -> None:
        """Contrast by a sigmoid of each pairing (SigLIP's), not a softmax. A model without a bias gets one, new."""
        self.sigmoid = True
        if getattr(self.clip, "logit_bias", None) is None:
            self.logit_bias = nn.Parameter(torch.tensor(start))

    def bias(self) -> Tensor | None:
        """What is added to the scaled cosine under a sigmoid, a scalar; None where contrasts are by a softmax."""
        if not self.sigmoid:
            return None
        return wide(self.clip.logit_bias if self.logit_bias is None else self.logit_bias).squeeze()

    def learn_last(self, blocks: int | None, tower: ClipImage | TimmImage | Text) -> None:
        """Leave a tower as it is, but for its last so many blocks and what comes after them; 0: all of it."""
        if blocks is None:
            return
        if blocks > len(tower.blocks):
            raise UserError(f"the last {blocks} blocks are to learn: this tower has {len(tower.blocks)}")
        learning = (
            [*tower.blocks[len(tower.blocks) - blocks :].parameters(), *tower.ending()] if blocks else []
        )
        kept = {id(parameter) for parameter in learning}
        for parameter in tower.parameters():
            if id(parameter) not in kept:
                parameter.requires_grad_(False)

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the factor on the cosine at or below 100."""
        self.clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def compile_towers(self) -> None:
        """torch.compile each block of both towers in place: one compilation for all blocks of a tower."""
        for tower in (self.text, self.image):
            for block in tower.blocks:
                block.compile(dynamic=tower is self.text)  # captions differ in length from batch to batch

    def new_state(self) -> set[str]:
        """Names in the state dict that another run of the objective may start from."""
        return {name for name in self.state_dict() if not name.startswith(("clip.", "teacher."))}

    @abstractmethod
    def compile_blocks(self) -> None:
        """torch.compile each transformer block in place."""
