"""Compare this project's losses, outputs and gradient norms with reference vectors, in float64.

    python tests/check_vectors.py FILE...

Every size is read from the file's weights and metadata. Exit code 1 where any relative error exceeds 1e-5.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from train.batch import Batch
from train.importing import import_clip, import_training
from train.model import Macco, Method

TOLERANCE = 1e-5
LOSSES = {
    "contrast": "contrast_loss",
    "mir": "intra_modal_contrast_loss",
    "mlm": "mask_loss_text",
    "mim": "mask_loss_image",
    "loss": "total_loss",
}
WEIGHTS = {"contrast": "contrast", "intra": "mir", "text": "mlm", "image": "mim"}


@dataclass(frozen=True)
class Row:
    name: str
    expected: float  # the value, or for an array its largest magnitude
    error: float  # relative


@dataclass(frozen=True)
class Vectors:
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Vectors":
        with safe_open(path, "pt") as file:
            return cls({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def relative(name: str, found: Tensor, expected: Tensor) -> Row:
    """Largest difference over the largest magnitude expected."""
    found, expected = found.detach().double(), expected.double()
    if found.shape != expected.shape:
        raise SystemExit(f"{name}: shape {tuple(found.shape)} where the file has {tuple(expected.shape)}")
    size = expected.abs().max().item() if expected.numel() else 0.0
    gap = (found - expected).abs().max().item() if expected.numel() else 0.0
    return Row(name, expected.item() if expected.numel() == 1 else size, gap / size if size else gap)


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
    batch = Batch(
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


def kind(vectors: Vectors) -> Callable[[Vectors], list[Row]]:
    """Which check a file asks for."""
    if "input.texts" in vectors.tensors:
        return macco
    raise SystemExit("not a file of reference vectors that this check knows")


def check(path: Path) -> list[Row]:
    """All comparisons of one file."""
    vectors = Vectors.read(path)
    return kind(vectors)(vectors)


def main(paths: list[str]) -> int:
    """Print a table per file; gradients that agree are summed up in one line."""
    if not paths:
        print(__doc__)
        return 2
    failed = 0
    for path in paths:
        rows = check(Path(path))
        bad = [row for row in rows if not row.error <= TOLERANCE]
        failed += len(bad)
        print(f"{path}: {len(rows)} values, {len(bad)} beyond {TOLERANCE:g}")
        shown = [row for row in rows if not row.name.startswith("grad ") or row in bad]
        gradients = [row for row in rows if row.name.startswith("grad ")]
        if gradients:
            shown.append(Row(f"{len(gradients)} gradient norms (worst)", *_worst(gradients)))
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
