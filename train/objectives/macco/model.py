"""MACCO: a CLIP with mask tokens and two predictors, which exist in training only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from macco.pipeline.errors import UserError
from macco.train.clip.towers import ClipImage, Encoded, encode_both, wide
from macco.train.distributed import ranks
from macco.train.losses.congruence import Attention, congruence
from macco.train.losses.contrastive import clip_contrast, intra_modal
from macco.train.losses.masked import masked_pixels, masked_words, patch_pixels
from macco.train.losses.negatives import intra_modal_negatives, next_margin, rank_negatives
from macco.train.losses.pairs import PairIds, same, true_negatives
from macco.train.objectives.macco.attention import (
    DISTRIBUTED,
    heard,
    image_logits,
    self_logits,
    text_logits,
)
from macco.train.objectives.macco.batch import MaskedBatch
from macco.train.objectives.macco.predictors import ImagePredictor, TextPredictor, inject
from macco.train.objectives.macco.settings import Method
from macco.train.objectives.model import Model
from macco.train.objectives.together import pair_ids


@dataclass(frozen=True)
class Encodings:
    """Both towers' outputs; the masked ones where a loss needs them."""

    text: Encoded
    image: Encoded
    masked_text: Encoded | None
    masked_image: Encoded | None
    negatives: Tensor | None  # [B, K, D], not normalised
    inputs: tuple[Tensor, Tensor] | None = None  # of the last blocks, text and image: for the regulariser


class Macco(Model):
    """An open_clip model under the MACCO objective."""

    def __init__(self, clip: nn.Module, method: Method) -> None:
        super().__init__(clip)
        self.method = method
        joint = self._joint_width()
        heads = method.heads or max(1, joint // 64)
        if joint % heads:
            raise UserError(f"{heads} predictor heads do not divide the joint width {joint}: set heads")
        self.text_mask_token = nn.Parameter(torch.randn(self.text.width) * 0.02)
        self.image_mask_token = nn.Parameter(torch.randn(self.image.width) * 0.02)
        self.prediction_text = self.prediction_image = None
        if method.mlm:
            self.prediction_text = TextPredictor(joint, heads, method.text_depth, self.text.vocabulary)
        if method.mim:
            grid, patch = self.image.grid, self.image.patch
            self.prediction_image = ImagePredictor(joint, heads, method.image_depth, grid, patch)
        if method.negatives:
            self.register_buffer("margin", torch.zeros(method.negatives))
        if method.congruence and not (method.mlm and method.mim):
            raise UserError("method.congruence needs both predictors: leave method.mlm and method.mim on")
        if method.stop_gradient and not method.congruence and isinstance(self.image, ClipImage):
            self.image.leave_patches()
        self._freeze()
        self.after_step()  # SigLIP's starts above

    def _joint_width(self) -> int:
        with torch.no_grad():
            parameter = next(self.clip.parameters())
            tokens = torch.zeros(1, self.text.context, dtype=torch.long, device=parameter.device)
            text = self.text.encode(self.text.embed(tokens), self.text.ends(tokens)).tokens.shape[-1]
            size = [g * p for g, p in zip(self.image.grid, self.image.patch, strict=True)]
            x = self.image.embed(parameter.new_zeros(1, 3, *size))
            image = self.image.encode(x, None).tokens.shape[-1]
        if text != image:
            raise UserError(
                f"text tokens have width {text}, image tokens {image}: no joint space for the predictors"
            )
        return text

    def _freeze(self) -> None:
        frozen: list[nn.Parameter] = []
        if self.method.freeze == "image":
            frozen = self.image.parameters()
        elif self.method.freeze == "text":
            frozen = self.text.parameters()
        for parameter in frozen:
            parameter.requires_grad_(False)

    def after_step(self) -> None:
        self.clamp_scale()

    def new_state(self) -> set[str]:
        return super().new_state() - {"margin"}  # it adapts to the run

    def compile_blocks(self) -> None:
        self.compile_towers()

    def encode(self, batch: MaskedBatch, pixels: Tensor, *, alone: bool = False) -> Encodings:
        """Run the towers on the batch and, as far as the losses ask for it, on its masked twin.

        alone: the predictors learn alone; the towers are as they are, and keep no graph.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not alone):
            if not self.method.congruence:
                return self._encode(batch, pixels)
            with heard(self.text.blocks[-1]) as text, heard(self.image.blocks[-1]) as image:
                encodings = self._encode(batch, pixels)
            # The plain samples come first, whether or not their masked twins are in the same pass.
            size = len(batch)
            return replace(encodings, inputs=(text[0][:size], image[0][:size]))

    def _encode(self, batch: MaskedBatch, pixels: Tensor) -> Encodings:
        m = self.method
        text_mask = batch.text_mask if m.masked_views or m.mlm else None
        patch_mask = batch.patch_mask if m.masked_views or m.mim else None
        text, masked_text = encode_both(self.text, batch.tokens, text_mask, self.text_mask_token)
        image, masked_image = encode_both(self.image, pixels, patch_mask, self.image_mask_token)
        negatives = None
        if m.negatives and batch.negatives is not None:
            encoded, _ = encode_both(self.text, batch.negatives.flatten(0, 1), None, self.text_mask_token)
            negatives = encoded.cls.view(*batch.negatives.shape[:2], -1)
        return Encodings(text, image, masked_text, masked_image, negatives)

    def features(self, encodings: Encodings) -> Tensor:
        """The normalised pooled features, [b, V, D] in float32 or better.

        V: text, image; then masked text, masked image where a contrast uses them; then the hard negatives.
        """
        e, views = encodings, [encodings.text.cls, encodings.image.cls]
        if self.method.masked_views:
            assert e.masked_text is not None
            assert e.masked_image is not None
            views += [e.masked_text.cls, e.masked_image.cls]
        stacked = torch.stack(views, dim=1)
        if e.negatives is not None:
            stacked = torch.cat([stacked, e.negatives], dim=1)
        return F.normalize(wide(stacked), dim=-1)

    def plain(self, features: Tensor) -> dict[str, Tensor]:
        """Of the features [b, V, D] those of images, captions and hard negatives as they are, by name."""
        views = features.shape[1] - self.method.negatives
        return {"text": features[:, 0], "image": features[:, 1], "negatives": features[:, views:]}

    def contrastive(
        self, features: Tensor, negative_valid: Tensor | None = None, ids: PairIds | None = None
    ) -> dict[str, Tensor]:
        """The contrastive losses, unweighted: this rank's features [b, V, D] against those of all ranks.

        ids: by which pairs are told that are no wrong answers to each other; None: there are none.
        """
        m, first = self.method, ranks.rank() * len(features)
        every_id = None if ids is None else ids.gathered()
        shared = None if ids is None or every_id is None else same(ids, every_id, first)
        everywhere = ranks.gather(features)
        scale = self.scale()
        local, every = features.transpose(0, 1), everywhere.transpose(0, 1)  # [V, b, D], [V, B, D]
        views = 4 if m.masked_views else 2
        losses: dict[str, Tensor] = {}
        negatives = valid = None
        if m.negatives:
            if negative_valid is None or features.shape[1] != views + m.negatives:
                raise UserError(f"batches hold no {m.negatives} hard negatives per caption: set negatives=0")
            valid = ranks.gather(negative_valid.int()).bool()  # [B, K]
            counted = valid.flatten()  # [B K], or [b, B K] where some are true of some images
            if ids is not None and every_id is not None and every_id.negatives is not None:
                assert ids.negatives is not None
                counted = counted & true_negatives(ids, every_id, every_id.negatives.flatten())
                negative_valid = negative_valid & true_negatives(ids, every_id, ids.negatives)
                valid = ranks.gather(negative_valid.int()).bool()
            losses |= self._on_negatives(features, negative_valid, everywhere, valid, counted, scale)
            negatives, valid = everywhere[:, views:].flatten(0, 1), counted
        if m.contrast:
            used = views if m.mca else 2
            text, image = slice(0, used, 2), slice(1, used, 2)
            asked = used if m.anchors == "all" else 2
            losses["contrast"] = clip_contrast(
                local[0:asked:2],
                local[1:asked:2],
                every[text],
                every[image],
                scale,
                first,
                negatives,
                valid,
                shared,
                self.bias(),
            )
        if m.mir:
            sides = [(local[i + 2], local[i], every[i + 2], every[i], scale, first, shared) for i in (0, 1)]
            losses["mir"] = (intra_modal(*sides[0]) + intra_modal(*sides[1])) / 2
        return losses

    def pair_ids(self, batches: Sequence[MaskedBatch]) -> PairIds | None:
        """What the pairs of this rank's micro-batches are made of; None where that does not count."""
        return None if self.method.duplicate_negatives else pair_ids(batches)

    def _on_negatives(
        self,
        features: Tensor,
        exists: Tensor,
        everywhere: Tensor,
        all_exist: Tensor,
        counted: Tensor,
        scale: Tensor,
    ) -> dict[str, Tensor]:
        losses, views = {}, features.shape[1] - self.method.negatives
        text, image, negatives = features[:, 0], features[:, 1], features[:, views:]
        if self.method.imc:
            candidates = everywhere[:, views:].flatten(0, 1)
            losses["imc"] = intra_modal_negatives(text, image, candidates, counted, scale)
        if self.method.cmr:
            margin = self.get_buffer("margin")
            losses["cmr"] = rank_negatives(text, image, negatives, exists, scale, margin.clone())
            if self.training and torch.is_grad_enabled():
                every = (everywhere[:, 0], everywhere[:, 1], everywhere[:, views:], all_exist, scale)
                margin.copy_(next_margin(*every, margin, self.method.margin_limit))
        return losses

    def words(self, batch: MaskedBatch, encodings: Encodings) -> Tensor:
        """Predicted words at the masked tokens: logits [M, vocabulary]."""
        text, image = encodings.masked_text, encodings.image
        assert text is not None
        assert self.prediction_text is not None
        shown = self.injected(image)[:, self.image.prefix :]
        shown = shown.detach() if self.method.stop_gradient else shown
        logits: Tensor = self.prediction_text(self.injected(text), shown, batch.text_slots)
        return logits

    def rebuilt(self, batch: MaskedBatch, encodings: Encodings) -> Tensor:
        """Predicted pixels of the masked patches: [M, p * p * 3]."""
        image, text = encodings.masked_image, encodings.text
        assert image is not None
        assert self.prediction_image is not None
        patches = self.injected(image)[:, self.image.prefix :]
        patches = patches.detach() if self.method.stop_gradient else patches
        valid = None if self.method.reference else self.text.valid(batch.tokens)
        pixels: Tensor = self.prediction_image(patches, self.injected(text), batch.patch_slots, valid)
        return pixels

    def injected(self, encoded: Encoded) -> Tensor:
        """Tokens [B, N, D] as the predictors get them."""
        return inject(encoded.tokens, encoded.cls) if self.method.injection else encoded.tokens

    def reconstruction(
        self,
        batch: MaskedBatch,
        encodings: Encodings,
        pixels: Tensor,
        samples: tuple[Tensor, Tensor],
        size: int | None = None,
    ) -> dict[str, Tensor]:
        """The losses that need no other sample, unweighted.

        samples: what `masked_samples` gives for the whole step; size: this rank's pairs in it, None: this batch's.
        """
        losses: dict[str, Tensor] = {}
        if self.method.mlm:
            logits = wide(self.words(batch, encodings))
            losses["mlm"] = masked_words(logits, batch.tokens, batch.text_slots, samples[0])
        if self.method.mim:
            rebuilt = wide(self.rebuilt(batch, encodings))
            target = wide(patch_pixels(pixels, self.image.patch, batch.patch_slots))
            normalise = self.method.normalise_pixels
            losses["mim"] = masked_pixels(rebuilt, target, batch.patch_slots, samples[1], normalise=normalise)
        if self.method.congruence:
            found, kind = self.attention(batch, encodings), self.method.congruence_kind
            both = congruence(found, kind) + congruence(found.mirrored(), kind)
            losses["congruence"] = both.sum() / 2 / (size or len(batch))
        return losses

    def attention(self, batch: MaskedBatch, encodings: Encodings) -> Attention:
        """Attention among words and patches, and between them by the predictors; in direction L (see attention.py).

        Where the text tower is causal, so is its block, and direction L compares what it allows.
        """
        assert encodings.inputs is not None
        assert self.prediction_text is not None
        assert self.prediction_image is not None
        present = self.text.valid(batch.tokens)
        place = torch.arange(present.shape[1], device=present.device)
        words = present & (place < present.sum(1, keepdim=True) - 1)  # the last one is the end
        if not self.text.fixed_length:  # SigLIP's captions have no start token
            words = words & (place > 0)
        prefix = self.image.prefix
        text, image = self.injected(encodings.text), self.injected(encodings.image)[:, prefix:]
        own, other = (
            self_logits(tower.blocks[-1], x)
            for tower, x in zip((self.text, self.image), encodings.inputs, strict=True)
        )
        reached = torch.is_grad_enabled() and self.method.congruence_kind == DISTRIBUTED
        with torch.set_grad_enabled(reached):
            across = text_logits(self.prediction_text, text, image)
            valid = None if self.method.reference else present
            back = image_logits(self.prediction_image, image, text, valid)
        patches = words.new_ones(len(batch), image.shape[1])
        causal = self.text.module.attn_mask is not None
        return Attention(own, across, back, other[:, :, prefix:, prefix:], words, patches, causal=causal)

    def forward(
        self, batch: MaskedBatch, samples: tuple[Tensor, Tensor] | None = None, *, alone: bool = False
    ) -> dict[str, Tensor]:
        """All losses of one batch: each that is on, unweighted, and "loss", their weighted sum."""
        pixels = self.pixels(batch.images)
        encodings = self.encode(batch, pixels, alone=alone)
        with torch.autocast(pixels.device.type, enabled=False):
            losses = self.contrastive(self.features(encodings), batch.negative_valid, self.pair_ids([batch]))
        samples = samples or masked_samples([batch], pixels.device)
        losses |= self.reconstruction(batch, encodings, pixels, samples)
        losses |= self.taught(batch, self.plain(self.features(encodings)))
        return losses | {"loss": self.weighted(losses)}

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the losses that are on."""
        weights = vars(self.method) | self.shared_weights
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def masked_samples(batches: Sequence[MaskedBatch], device: torch.device) -> tuple[Tensor, Tensor]:
    """Samples with a masked token, and with a masked patch: all batches, all ranks, divided by the ranks."""
    counts = [sum(b.text_slots.samples for b in batches), sum(b.patch_slots.samples for b in batches)]
    text, image = ranks.mean(torch.tensor(counts).float().to(device, non_blocking=True)).unbind()
    least = 1 / ranks.world()  # nothing masked anywhere: a loss of 0, not 0 / 0
    return text.clamp(min=least), image.clamp(min=least)
