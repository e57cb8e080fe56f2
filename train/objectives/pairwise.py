"""What objectives have in common whose losses ask for the features of all pairs, of all ranks and micro-batches."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from macco.train.clip.towers import Encoded, wide
from macco.train.data.batch import Batch
from macco.train.distributed import ranks
from macco.train.losses.contrastive import clip_contrast
from macco.train.losses.pairs import PairIds, same, true_negatives
from macco.train.objectives import accumulate
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.model import Model
from macco.train.objectives.objective import Objective, Precision, Step

B = TypeVar("B", bound=Batch)
E = TypeVar("E")  # what a micro-batch's own losses need of its encoding
W = TypeVar("W")  # what the losses know of the whole step: ids of pairs, counts over all ranks


class PairModel(Model, Generic[B, E, W]):
    """An open_clip model under losses across pairs, and losses of each pair alone."""

    weights: Mapping[str, float]  # of the losses, by name

    def after_step(self) -> None:
        self.clamp_scale()

    def compile_blocks(self) -> None:
        self.compile_towers()

    @abstractmethod
    def encode(self, batch: B) -> tuple[Features, E]:
        """The features of a micro-batch that losses across pairs ask for, and what its own losses need."""

    @abstractmethod
    def whole(self, batches: Sequence[B]) -> W:
        """What there is to know of a step, of this rank's micro-batches; on the device."""

    @abstractmethod
    def across(self, features: Features, whole: W) -> Losses:
        """The losses across pairs, unweighted: of all this rank's features, against those of all ranks.

        Their means over ranks are those of the whole batch.
        """

    def within(self, batch: B, features: Features, seen: E, whole: W) -> Losses:
        """The losses of each pair alone, unweighted, inside autocast; their sums over micro-batches are this rank's."""
        return {}

    def encoded_images(self, batch: B) -> Encoded:
        """The batch's images through their tower."""
        return self.image.encode(self.image.embed(self.pixels(batch.images)), None)

    def encoded_texts(self, *sets: Tensor) -> list[Tensor]:
        """Token ids [n, L], [m, L'], ... through the text tower in one pass: normalised features [n, D], [m, D], ..."""
        tokens = self.text.together(*sets)
        found = self.text.encode(self.text.embed(tokens), self.text.ends(tokens)).cls
        return list(torch.split(F.normalize(wide(found), dim=-1), [len(one) for one in sets]))

    def hard_contrast(self, features: Features, ids: PairIds | None, exist: Tensor | None) -> Tensor:
        """NegCLIP's contrast of "image" and "text" [b, D], with "negatives" [b, K, D] where there are any.

        ids: of this rank's pairs; exist: [b, K] bool, which hard negatives do.
        """
        text, image = features["text"], features["image"]
        first, every_id = ranks.rank() * len(text), None if ids is None else ids.gathered()
        shared = None if ids is None or every_id is None else same(ids, every_id, first)
        negatives = valid = None
        if "negatives" in features and exist is not None:
            negatives = ranks.gather(features["negatives"]).flatten(0, 1)
            valid = ranks.gather(exist.int()).bool().flatten()
            if ids is not None and every_id is not None and every_id.negatives is not None:
                valid = valid & true_negatives(ids, every_id, every_id.negatives.flatten())
        every_text, every_image = (ranks.gather(x)[None] for x in (text, image))
        scale, bias = self.scale(), self.bias()
        return clip_contrast(
            text[None], image[None], every_text, every_image, scale, first, negatives, valid, shared, bias
        )

    def weighted(self, losses: Losses) -> Tensor:
        """The weighted sum of losses."""
        weights = {**self.weights, **self.shared_weights}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def forward(self, batch: B) -> Losses:
        """All losses of one batch, unweighted, and "loss", their weighted sum."""
        features, seen = self.encode(batch)
        whole = self.whole([batch])
        with torch.autocast(batch.tokens.device.type, enabled=False):
            losses = self.across(features, whole)
        losses |= self.within(batch, features, seen, whole) | self.taught(batch, features, whole)
        return losses | {"loss": self.weighted(losses)}


M = TypeVar("M", bound=PairModel[Any, Any, Any])


class PairObjective(Objective[M, B]):
    """An objective whose model is a PairModel."""

    def gradients(self, model: M, batch: B, step: Step, precision: Precision) -> Losses:
        size = self.config.micro_batch or len(batch)
        device = next(model.parameters()).device
        batches = [part.to(device) for part in ([batch] if size >= len(batch) else batch.split(size))]
        whole = model.whole(batches)

        def encode(part: B) -> tuple[Features, tuple[Features, Any]]:
            features, seen = model.encode(part)
            return features, (features, seen)

        return accumulate.backward(
            batches,
            encode=encode,
            across=lambda features: model.across(features, whole),
            within=lambda part, seen: model.within(part, *seen, whole) | model.taught(part, seen[0], whole),
            weighted=model.weighted,
            precision=precision,
        )

    def scalars(self, model: M, step: Step) -> dict[str, float]:
        return {"logit_scale": float(model.scale().detach())}


def existing_negatives(batches: Sequence[Batch]) -> Tensor | None:
    """Which hard negatives of micro-batches exist, [b, K] bool; None where there are none at all."""
    found = [batch.negative_valid for batch in batches if batch.negative_valid is not None]
    return torch.cat(found) if found else None


def rows_with_negatives(batches: Sequence[Batch]) -> Tensor:
    """Pairs with a hard negative: all micro-batches, all ranks, divided by the ranks; never 0."""
    exist = existing_negatives(batches)
    count = batches[0].tokens.new_zeros(()) if exist is None else exist.any(1).sum()
    return ranks.mean(count.float()).clamp(min=1 / ranks.world())
