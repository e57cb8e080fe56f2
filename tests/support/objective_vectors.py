"""The losses of further objectives on what their files of reference vectors hold, case by case.

A case has `input.X`, `loss.TERM`, `grad.TERM.X` and `extra.X`; what was computed with is in the metadata, as JSON.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

from macco.train.clip.towers import pooled_alone
from macco.train.data.slots import Slots
from macco.train.losses.contrastive import clip_contrast
from macco.train.losses.distillation import distillation
from macco.train.losses.sigmoid import own_pairs, sigmoid_contrast, sigmoid_loss
from macco.train.objectives.c2lip.losses import attended_cosines, phrase_labels
from macco.train.objectives.csclip.model import CsclipModel, Whole
from macco.train.objectives.csclip.settings import CsclipConfig
from macco.train.objectives.degla.losses import image_grounded, text_grounded
from macco.train.objectives.fsc.losses import focal_hard_negatives, local_scores
from macco.train.objectives.read.decoder import IGNORED, Decoder
from macco.train.objectives.read.losses import alignment, reconstruction
from tests.support.tiny import tiny_clip
from tests.support.vectors import Row, Vectors, relative

TOLERANCE = 1e-9
NOTHING = 1e-12  # a gradient that is 0 but for rounding: smaller sizes are not divided by


class Found(NamedTuple):
    """What was computed of a case."""

    losses: dict[str, Tensor]
    extra: dict[str, Tensor] = {}  # noqa: RUF012 - never written to


Inputs = dict[str, Tensor]
Case = Callable[[Inputs, dict[str, Any], Vectors], Found]


def fsc(x: Inputs, about: dict[str, Any], vectors: Vectors) -> Found:
    """FSC-CLIP: texts are the captions, then the negatives that exist, type by type."""
    image, scale, options = x["image"], x["scale"], about["kwargs"]
    present = x["present"].view(-1, len(image)).bool()
    texts, tokens, attended = (
        _dense(each, present) for each in (x["text"], x["tokens"], x["attended"].bool())
    )
    there, rows = present.T, present.any(0).sum()
    rule = {"gamma": options["focal_gamma"], "smoothing": options["neg_label_smoothing"], "reference": True}
    captions = texts[:, 0][None]
    scores = scale * (texts @ image[:, :, None])[..., 0]
    local = local_scores(x["patches"], tokens, attended, scale, reference=True)
    losses = {
        "contrast": clip_contrast(captions, image[None], captions, image[None], scale),
        "global": options["neg_loss_weight"] * focal_hard_negatives(scores, there, rows, **rule),
        "local": options["local_neg_weight"] * focal_hard_negatives(local, there, rows, **rule),
    }
    return Found(losses | {"total": sum(losses.values(), torch.zeros(()))})


def _dense(x: Tensor, present: Tensor) -> Tensor:
    """[B + M, ...], negatives type by type, to [B, 1 + K, ...]; what is absent repeats the caption."""
    kinds, count = present.shape
    rows, out = iter(range(count, len(x))), [x[:count]]
    for kind in range(kinds):
        out.append(torch.stack([x[next(rows)] if present[kind, i] else x[i] for i in range(count)]))
    return torch.stack(out, 1)


def c2lip(x: Inputs, about: dict[str, Any], vectors: Vectors) -> Found:
    """C2LIP, or SigLIP's pooling head on each patch alone."""
    if "hidden" in x:
        return _patch_head(x, about)
    image, phrases, scale, bias = x["image"], x["phrases"], x["scale"], x["bias"]
    pairs, weights = len(image), about["weights"]
    own = own_pairs(pairs, pairs, 0, None, image.device)
    labels = phrase_labels(x["owner"], pairs, 0)
    cosine = attended_cosines(x["patches"], phrases)
    losses = {
        "contrast": sigmoid_contrast(image, x["text"], own, scale, bias, pairs),
        "npc": sigmoid_contrast(image, phrases, labels, scale, bias, len(phrases)),
        "xac": sigmoid_loss(scale * cosine + bias, labels, len(phrases)),
    }
    total = losses["contrast"] + weights["npc"] * losses["npc"] + weights["xac"] * losses["xac"]
    return Found(losses | {"total": total})


def _patch_head(x: Inputs, about: dict[str, Any]) -> Found:
    weights = {name.removeprefix("weight."): value for name, value in x.items() if name.startswith("weight.")}
    width, hidden = len(weights["proj.weight"]), len(weights["mlp.fc1.weight"])
    pool = AttentionPoolLatent(
        width,
        num_heads=about["heads"],
        mlp_ratio=hidden / width,
        norm_layer=partial(nn.LayerNorm, eps=about["norm_eps"]),
        act_layer=getattr(nn, about["activation"]),
    ).double()
    # With the given tensors as its weights, so that gradients reach them.
    pooled = torch.func.functional_call(pool, weights, x["hidden"])
    alone = torch.func.functional_call(
        _Alone(pool), {f"pool.{n}": v for n, v in weights.items()}, x["hidden"]
    )
    probed = (F.normalize(alone, dim=-1) * x["probe"]).sum()
    return Found({"probed": probed}, {"pooled": pooled, "patches": alone})


class _Alone(nn.Module):
    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, hidden: Tensor) -> Tensor:
        return pooled_alone(self.pool, hidden)


def csclip(x: Inputs, about: dict[str, Any], vectors: Vectors) -> Found:
    """CS-CLIP through its model, which is asked for the public code's way with what does not exist."""
    options, slots = about["kwargs"], x["units"].shape[1] - 1
    clip = tiny_clip()
    del clip.logit_scale
    clip.logit_scale = x["log_scale"]
    config = CsclipConfig(
        units=options["lambda_components"], slots=slots, duplicate_negatives=True, reference=True
    )
    there = F.pad(x["units"][:, 1:] > 0, (1, 0), value=True)
    whole = Whole(None, there, x["valid"].bool(), torch.arange(x["units"].numel()), x["available"])
    features = {
        "image": x["image"],
        "text": x["positive"][:, 0],
        "negatives": x["negative"][:, :1],
        "units": x["positive"][:, 1:],
        "unit_foils": x["negative"][:, 1:],
    }
    losses = CsclipModel(clip, config).across(features, whole)
    total = options["lambda_full"] * losses["full"] + config.units * losses["units"]
    return Found(losses | {"total": total})


def read(x: Inputs, about: dict[str, Any], vectors: Vectors) -> Found:
    """READ-CLIP: captions, then the negatives of each; features are not normalised. The decoder is a small T5."""
    count, weights, scale = len(x["image"]), about["weights"], x["log_scale"].exp()
    image, paraphrases = (F.normalize(x[name], dim=-1) for name in ("image", "paraphrase"))
    text = F.normalize(x["text"], dim=-1)
    captions, negatives = text[:count], text[count:] if about["negatives"] else None
    memory, labels = x["pooled"] @ x["projection"].T, x["labels"]
    there = labels != IGNORED
    with _double():
        decoder = _decoder(vectors)
        logits = decoder(memory, labels, Slots.of(there))
        everywhere = decoder(memory, torch.where(there, labels, 0), Slots.of(torch.ones_like(there)))
    asked = labels[there]
    losses = {
        "contrast": clip_contrast(
            captions[None], image[None], captions[None], image[None], scale, negatives=negatives
        ),
        "reconstruction": reconstruction(logits, asked, len(asked)),
        "alignment": alignment(
            paraphrases, captions, scale, 0, torch.ones(count, dtype=torch.bool), float(count)
        ),
    }
    total = losses["contrast"] + sum(weights[name] * losses[name] for name in weights)
    return Found(losses | {"total": total}, {"memory": memory, "logits": everywhere.view(*labels.shape, -1)})


def _decoder(vectors: Vectors) -> Decoder:
    """The decoder of a file: built from its settings, its head its own."""
    settings = json.loads(vectors.metadata["about"])["t5"]
    t5 = T5ForConditionalGeneration(T5Config(**settings)).eval()
    t5.lm_head = nn.Linear(settings["d_model"], settings["vocab_size"], bias=False)
    missing, unknown = t5.load_state_dict(vectors.under("weight."), strict=False)
    if unknown or any(name.startswith(("decoder", "lm_head")) for name in missing):
        raise SystemExit(f"these weights are not the decoder's: {[*unknown, *missing]}")
    return Decoder(t5).double()


@contextmanager
def _double() -> Iterator[None]:
    """T5's norm, and its softmax in some versions, without the library's detour by float32."""

    def norm(self: Any, x: Tensor) -> Tensor:
        scaled: Tensor = (
            self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        )
        return scaled

    with patch.object(T5LayerNorm, "forward", norm), patch.object(Tensor, "float", Tensor.double):
        yield


def degla(x: Inputs, about: dict[str, Any], vectors: Vectors) -> Found:
    """DeGLA: captions, then the negatives of each, caption by caption."""
    count, options = len(x["image"]), about["kwargs"]
    image, scale = x["image"], x["scale"]
    texts, taught = (
        torch.cat([each[:count, None], each[count:].view(count, options["neg_text"], -1)], 1)
        for each in (x["text"], x["teacher_text"])
    )
    there = torch.ones(texts.shape[:2], dtype=torch.bool)
    captions = texts[:, 0][None]
    losses = {
        "text_grounded": text_grounded(texts, taught[:, 0], there, float(count), reference=True),
        "image_grounded": image_grounded(image, texts, there, float(count), scale),
        "distillation": distillation(image, texts, x["teacher_image"], taught, there),
    }
    negatives = texts[:, 1:].flatten(0, 1)
    contrast = clip_contrast(captions, image[None], captions, image[None], scale, negatives=negatives)
    weights = {
        "text_grounded": options["text_local_weight"],
        "image_grounded": options["image_local_weight"],
        "distillation": options["distill_weight"],
    }
    total = contrast + sum(weights[name] * loss for name, loss in losses.items())
    return Found(losses | {"total": total})


# By an input that only this objective's files have.
KINDS: dict[str, Case] = {
    "attended": fsc,
    "phrases": c2lip,
    "positive": csclip,
    "paraphrase": read,
    "teacher_image": degla,
}


def knows(vectors: Vectors) -> bool:
    """Whether a file is of an objective that is known here."""
    return _kind(vectors) is not None


def _kind(vectors: Vectors) -> Case | None:
    inputs = {name.partition(".input.")[2] for name in vectors.tensors}
    return next((case for name, case in KINDS.items() if name in inputs), None)


def rows(vectors: Vectors) -> list[Row]:
    """All values and gradients of a file's cases."""
    compute, found = _kind(vectors), list[Row]()
    assert compute is not None
    for case, about in json.loads(vectors.metadata["cases"]).items():
        inputs = vectors.under(f"{case}.input.")
        leaves = {n: v.clone().requires_grad_() if v.is_floating_point() else v for n, v in inputs.items()}
        made = compute(leaves, about, vectors)
        for prefix, values in (("loss", made.losses), ("extra", made.extra)):
            for name, expected in vectors.under(f"{case}.{prefix}.").items():
                found.append(_row(f"{case} {prefix} {name}", values[name], expected))
        for name, expected in vectors.under(f"{case}.grad.").items():
            term, _, of = name.partition(".")
            found.append(_row(f"grad {case} {name}", _gradient(made.losses[term], leaves, of), expected))
    return found


def _row(name: str, found: Tensor, expected: Tensor) -> Row:
    return relative(name, found, expected, NOTHING, TOLERANCE)


def _gradient(loss: Tensor, leaves: Inputs, of: str) -> Tensor:
    """Of a loss by an input; "caption" is the captions among the texts."""
    name = "text" if of == "caption" else of
    found = None
    if loss.requires_grad:
        (found,) = torch.autograd.grad(loss, leaves[name], retain_graph=True, allow_unused=True)
    gradient = torch.zeros_like(leaves[name]) if found is None else found
    return gradient[: len(leaves["image"])] if of == "caption" else gradient
