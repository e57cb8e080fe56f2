"""Compare this project's losses, outputs and gradients with reference vectors, in float64.

    python tests/check_vectors.py FILE...

Every size is read from the file's weights and metadata. Exit code 1 for a file of other things, and where any relative
error exceeds 1e-5; 1e-6 in a file of attention congruence; 1e-9 in one of another objective's losses (C2LIP, ...).
"""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, it is in no package

from macco.train.clip.convert import import_clip, import_training
from macco.train.losses.congruence import Attention, congruence
from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method
from tests.support import objective_vectors
from tests.support.vectors import TOLERANCE as TOLERANCE
from tests.support.vectors import Row, Vectors, relative

CONGRUENCE_TOLERANCE = 1e-6
NOTHING = 1e-9  # a divergence of one-token captions is 0 but for rounding: smaller sizes are not divided by
LOSSES = {
    "contrast": "contrast_loss",
    "mir": "intra_modal_contrast_loss",
    "mlm": "mask_loss_text",
    "mim": "mask_loss_image",
    "loss": "total_loss",
}
WEIGHTS = {"contrast": "contrast", "intra": "mir", "text": "mlm", "image": "mim"}


def build(vectors: Vectors) -> Macco:
    """The model of a file, in float64. Weights do not tell vision heads: of the plausible, those that fit."""
    meta, weights = vectors.metadata, vectors.under("weight.")
    heads = int(meta["heads"])
    width = len(weights["CLIP.visual.class_embedding"])
    images = vectors.tensors["input.images_seeded_float16"].double()
    expected = vectors.tensors["output.img_feat_cls_token"]

    def misfit(vision_heads: int) -> float:
        clip, _ = import_clip(weights, quick_gelu=False, text_heads=heads, vision_heads=vision_heads)
        encoder: Any = clip.double()
        with torch.no_grad():
            return float((encoder.encode_image(images, normalize=True) - expected).abs().max())

    candidates = {n for n in (heads, width // 16, width // 64) if n and width % n == 0}
    vision_heads = min(candidates, key=misfit) if len(candidates) > 1 else heads
    clip, _ = import_clip(weights, quick_gelu=False, text_heads=heads, vision_heads=vision_heads)
    loss_weights: dict[str, Any] = {
        WEIGHTS[word]: float(value)
        for word, value in re.findall(r"(\w+) ([\d.]+)", meta["weights"])
        if word in WEIGHTS
    }
    method = Method(
        **loss_weights,
        heads=heads,
        text_depth=int(meta["text_predictor_cross_attn_layers"]),
        image_depth=int(meta["image_predictor_cross_attn_layers"]),
        reference=True,
    )
    model = Macco(clip, method)
    import_training(model, weights)
    return model.double()


def macco(vectors: Vectors) -> list[Row]:
    """Losses, outputs and gradient norms of a macco file."""
    model = build(vectors)
    tokens, text_mask = vectors.tensors["input.texts"], vectors.tensors["input.text_mask"]
    image_mask = vectors.tensors["input.image_mask"]
    assert not image_mask[:, 0].any(), "the class token is masked"
    batch = MaskedBatch(
        images=vectors.tensors["input.images_seeded_float16"].double(),
        tokens=tokens,
        text_mask=text_mask,
        patch_mask=image_mask[:, 1:],
        ids=[str(i) for i in range(len(tokens))],
    )
    losses = model(batch)
    losses["loss"].backward()
    rows = [
        relative(name, losses[name], torch.tensor(float(vectors.metadata[key]), dtype=torch.float64))
        for name, key in LOSSES.items()
    ]

    encodings = model.encode(batch, batch.images)
    features = model.features(encodings).unbind(1)
    names = ("text_feat", "img_feat", "masked_text_feat", "masked_image_feat")
    for name, feature in zip(names, features, strict=True):
        rows.append(relative(name, feature, vectors.tensors[f"output.{name}_cls_token"]))
    rows.append(
        relative("logit_scale", model.clip.logit_scale.exp()[None], vectors.tensors["output.logit_scale"])
    )

    words = model.words(batch, encodings).log_softmax(-1)
    true = words.gather(1, tokens[text_mask][:, None])[:, 0]
    rows.append(relative("token_logprob", true, vectors.tensors["output.masked_token_logprob"][text_mask]))
    pixels = model.rebuilt(batch, encodings)[:, :8]
    rows.append(
        relative("patch_pred8", pixels, vectors.tensors["output.masked_patch_pred8"][image_mask[:, 1:]])
    )

    renamed = {"logit_scale": "clip.logit_scale", "img_mask_token": "image_mask_token"}
    parameters = dict(model.named_parameters())
    for name, expected in vectors.under("gradnorm.").items():
        grad = parameters[renamed.get(name, name.replace("CLIP.", "clip.", 1))].grad
        assert grad is not None, f"no gradient reaches {name}"
        rows.append(relative("grad " + name, grad.norm()[None], expected))
    return rows


def cacr(vectors: Vectors) -> list[Row]:
    """Each sample's losses and gradients of a cacr file, all its samples as one padded batch."""
    samples = [name.removesuffix(".logits") for name in vectors.tensors if name.endswith(".logits")]
    lengths = torch.stack([vectors.tensors[f"{s}.lengths"] for s in samples])
    text, image = (torch.arange(int(n.max())) < n[:, None] for n in lengths.unbind(1))
    places = torch.cat([text, image], 1)
    logits = []
    for sample, place in zip(samples, places, strict=True):
        own = vectors.tensors[f"{sample}.logits"].double()
        # What lies in the padding must not matter.
        padded = torch.full((len(own), len(place), len(place)), torch.nan, dtype=torch.float64)
        padded[:, place[:, None] & place] = own.flatten(1)
        logits.append(padded)
    batch = torch.stack(logits).requires_grad_()
    rows = []
    for loss in ("cacr", "iais_singular", "iais_distributed"):
        for direction in ("L", "V"):
            attention = Attention.joint(batch, text, image)
            values = congruence(
                attention if direction == "L" else attention.mirrored(), loss.replace("_", "-")
            )
            (gradients,) = torch.autograd.grad(values.sum(), batch)
            for i, sample in enumerate(samples):
                name, kept = f"{sample}.{loss}_{direction}", places[i][:, None] & places[i]
                if name not in vectors.tensors:
                    continue
                expected = vectors.tensors[f"{name}.grad"]
                found = gradients[i][:, kept].view(expected.shape)
                rows.append(relative(name, values[i : i + 1], vectors.tensors[name], NOTHING))
                rows.append(relative(f"grad {name}", found, expected, NOTHING))
    if not rows:
        raise SystemExit("no congruence loss in this file")
    return [replace(row, tolerance=CONGRUENCE_TOLERANCE) for row in rows]


def kind(vectors: Vectors) -> Callable[[Vectors], list[Row]]:
    """Which check a file asks for."""
    if "input.texts" in vectors.tensors:
        return macco
    if objective_vectors.knows(vectors):
        return objective_vectors.rows
    if any(name.endswith(".logits") for name in vectors.tensors):
        return cacr
    raise SystemExit("not a file of reference vectors that this check knows")


def check(path: Path) -> list[Row]:
    """All comparisons of one file."""
    try:
        vectors = Vectors.read(path)
    except (OSError, SafetensorError) as error:
        raise SystemExit(f"{path} cannot be read as reference vectors: {error}") from error
    try:
        return kind(vectors)(vectors)
    except LookupError as error:
        raise SystemExit(
            f"{path} is no file of reference vectors that this check knows: it lacks {error}"
        ) from error


def main(paths: list[str]) -> int:
    """Print a table per file; gradients that agree are summed up in one line."""
    if not paths:
        print(__doc__)
        return 2
    failed = 0
    for path in paths:
        rows = check(Path(path))
        bad = [row for row in rows if not row.error <= row.tolerance]
        failed += len(bad)
        print(f"{path}: {len(rows)} values, {len(bad)} beyond {rows[0].tolerance:g}")
        shown = [row for row in rows if not row.name.startswith("grad ") or row in bad]
        gradients = [row for row in rows if row.name.startswith("grad ")]
        if gradients:
            shown.append(Row(f"{len(gradients)} gradients (worst)", *_worst(gradients)))
        for row in shown:
            mark = "  <-- differs" if row in bad else ""
            print(f"  {row.name:60} {row.expected:14.8g} {row.error:10.2e}{mark}")
    return 1 if failed else 0


def _worst(rows: list[Row]) -> tuple[float, float]:
    row = max(rows, key=lambda r: r.error)
    return row.expected, row.error


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
