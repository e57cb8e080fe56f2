"""C2LIP: a CLIP under sigmoid losses of captions with images, of phrases with images and with attended patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.train.clip.towers import wide
from macco.train.data.texts import TextSet, joined
from macco.train.distributed import ranks
from macco.train.losses.pairs import PairIds, same
from macco.train.losses.sigmoid import own_pairs, sigmoid_contrast, sigmoid_loss
from macco.train.objectives.accumulate import Features, Losses
from macco.train.objectives.c2lip.batches import PhraseBatch
from macco.train.objectives.c2lip.losses import attended_cosines, phrase_labels, told
from macco.train.objectives.c2lip.settings import C2lipConfig
from macco.train.objectives.pairwise import PairModel
from macco.train.objectives.together import pair_ids


@dataclass(frozen=True)
class Whole:
    """What the losses know of the whole step."""

    ids: PairIds | None  # of this rank's pairs
    phrases: TextSet  # this rank's


class C2lipModel(PairModel[PhraseBatch, None, Whole]):
    """An open_clip model under the C2LIP objective; a CLIP gets a bias for the sigmoid, SigLIP has one."""

    def __init__(self, clip: nn.Module, config: C2lipConfig) -> None:
        super().__init__(clip)
        self.config = config
        self.weights = {"contrast": 1.0, "npc": config.npc, "xac": config.xac}
        self.use_sigmoid(config.bias)
        self.after_step()  # SigLIP's scale starts above

    def encode(self, batch: PhraseBatch) -> tuple[Features, None]:
        c, images = self.config, self.encoded_images(batch)
        features = {"image": F.normalize(wide(images.cls), dim=-1)}
        if c.xac:
            features["patches"] = F.normalize(wide(self.image.patches(images)), dim=-1)
        if c.npc or c.xac:
            # Two passes: phrases are a third as long as captions.
            (distinct,) = self.encoded_texts(batch.phrases.tokens)
            features["phrases"] = distinct[batch.phrases.which]
        (features["text"],) = self.encoded_texts(batch.tokens)
        return features, None

    def whole(self, batches: Sequence[PhraseBatch]) -> Whole:
        ids = None if self.config.duplicate_negatives else pair_ids(batches)
        return Whole(ids, joined([batch.phrases for batch in batches], [len(batch) for batch in batches]))

    def across(self, features: Features, whole: Whole) -> Losses:
        """All three losses: this rank's images and patches with the captions and phrases of all ranks."""
        image, ids, scale, bias = features["image"], whole.ids, self.scale(), self.bias()
        assert bias is not None
        count, first = len(image), ranks.rank() * len(image)
        every_text = ranks.gather(features["text"])
        shared = None if ids is None else same(ids, ids.gathered(), first)
        labels = own_pairs(count, len(every_text), first, shared, image.device)
        losses = {"contrast": sigmoid_contrast(image, every_text, labels, scale, bias, count)}
        if "phrases" not in features:
            return losses
        own, phrases = whole.phrases, ranks.gather_ragged(features["phrases"])
        owner, numbers = ranks.gather_ragged(own.owner + first), ranks.gather_ragged(own.ids)
        neither = None
        if not self.config.duplicate_negatives:
            neither = told(own.owner, own.ids, numbers, count)
            neither = neither if shared is None else neither | shared[:, owner]
        labels, all_phrases = phrase_labels(owner, count, first, neither), len(phrases) / ranks.world()
        if self.config.npc:
            losses["npc"] = sigmoid_contrast(image, phrases, labels, scale, bias, all_phrases)
        if self.config.xac:
            within = None if own.patches is None else _within(own, labels.shape, owner, first)
            cosine = attended_cosines(features["patches"], phrases, within)
            losses["xac"] = sigmoid_loss(scale * cosine + bias, labels, all_phrases)
        return losses


def _within(own: TextSet, shape: torch.Size, owner: Tensor, first: int) -> Tensor:
    """Which patches count for each image with each phrase: of its own phrases those in their boxes, [b, N, P] bool."""
    assert own.patches is not None
    within = own.patches.new_ones(*shape, own.patches.shape[1])
    # All phrases lie in the order of their pairs, this rank's in one piece.
    places = (owner < first).sum() + torch.arange(len(own), device=owner.device)
    within[own.owner, places] = own.patches
    return within
