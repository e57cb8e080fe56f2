"""MACCO written out slowly and literally, from the formulas: loops, stored attention, every position.

It shares nothing with the package but parameter names, so that the two can only agree by being right.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from macco.train.objectives.macco.batches import MaskedBatch

Weights = Mapping[str, Tensor]


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w[name + ".weight"] + w[name + ".bias"]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attention(w: Weights, name: str, x: Tensor, y: Tensor, heads: int, forbidden: Tensor | None) -> Tensor:
    """x: [N, D]; y: [K, D]; forbidden: [N, K] bool."""
    width = x.shape[1]
    (wq, wk, wv), (bq, bk, bv) = (
        w[name + ".in_proj_weight"].split(width),
        w[name + ".in_proj_bias"].split(width),
    )
    q, k, v = x @ wq.T + bq, y @ wk.T + bk, y @ wv.T + bv
    out = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width // heads)
        if forbidden is not None:
            scores = scores.masked_fill(forbidden, -math.inf)
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        out.append(weights @ v[:, part])
    return linear(w, name + ".out_proj", torch.cat(out, dim=1))


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    return linear(w, name + ".c_proj", gelu(linear(w, name + ".c_fc", x)))


def self_blocks(w: Weights, prefix: str, x: Tensor, heads: int, causal: bool) -> Tensor:
    forbidden = torch.ones(len(x), len(x), dtype=torch.bool).triu(1) if causal else None
    layer = 0
    while f"{prefix}.{layer}.ln_1.weight" in w:
        name = f"{prefix}.{layer}"
        y = norm(w, name + ".ln_1", x)
        x = x + attention(w, name + ".attn", y, y, heads, forbidden)
        x = x + mlp(w, name + ".mlp", norm(w, name + ".ln_2", x))
        layer += 1
    return x


def cross_blocks(w: Weights, prefix: str, x: Tensor, y: Tensor, heads: int) -> Tensor:
    layer = 0
    while f"{prefix}.{layer}.ln_x.weight" in w:
        name = f"{prefix}.{layer}"
        x = x + attention(
            w, name + ".attn", norm(w, name + ".ln_x", x), norm(w, name + ".ln_y", y), heads, None
        )
        x = x + mlp(w, name + ".mlp", norm(w, name + ".ln_post", x))
        layer += 1
    return x


def text_tower(w: Weights, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One caption [L]; tokens [L, D] and the pooled feature [D]."""
    x = torch.stack(
        [
            w["text_mask_token"] if m else w["clip.token_embedding.weight"][t]
            for t, m in zip(tokens, mask, strict=True)
        ]
    )
    x = x + w["clip.positional_embedding"][: len(x)]
    x = self_blocks(w, "clip.transformer.resblocks", x, heads=2, causal=True)
    x = norm(w, "clip.ln_final", x) @ w["clip.text_projection"]
    return x, x[int(tokens.argmax())]


def cut(image: Tensor, patch: int) -> list[Tensor]:
    """An image [3, S, S] to its patches [3, p, p], row by row."""
    steps = range(0, image.shape[1], patch)
    return [image[:, i : i + patch, j : j + patch] for i in steps for j in steps]


def image_tower(w: Weights, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One image; tokens [1 + P, D] and the pooled feature [D]."""
    kernel = w["clip.visual.conv1.weight"]
    rows = [w["clip.visual.class_embedding"]]
    for piece, masked in zip(cut(image, kernel.shape[-1]), mask, strict=True):
        rows.append(w["image_mask_token"] if masked else (kernel * piece).sum((1, 2, 3)))
    x = norm(w, "clip.visual.ln_pre", torch.stack(rows) + w["clip.visual.positional_embedding"])
    x = self_blocks(w, "clip.visual.transformer.resblocks", x, heads=2, causal=False)
    x = norm(w, "clip.visual.ln_post", x) @ w["clip.visual.proj"]
    return x, x[0]


def grid_position(place: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D sin-cos position: column in the first half, row in the second."""
    out = []
    for where in (place % columns, place // columns):
        angles = [where / 10000 ** (i / (width // 4)) for i in range(width // 4)]
        out += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(out, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def cross_entropy(scores: list[Tensor], right: int) -> Tensor:
    return torch.stack(scores).exp().sum().log() - scores[right]


def losses(w: Weights, batch: MaskedBatch, heads: int, padding: bool) -> dict[str, Tensor]:
    """The four losses and their weighted sum; padding: the image predictor attends to it."""
    none = torch.zeros(batch.text_mask.shape[1] + batch.patch_mask.shape[1], dtype=torch.bool)
    count = len(batch)
    text, masked_text = (
        [text_tower(w, t, m) for t, m in zip(batch.tokens, masks, strict=True)]
        for masks in ([none[: batch.tokens.shape[1]]] * count, batch.text_mask)
    )
    image, masked_image = (
        [image_tower(w, x, m) for x, m in zip(batch.images, masks, strict=True)]
        for masks in ([none[: batch.patch_mask.shape[1]]] * count, batch.patch_mask)
    )
    scale = w["clip.logit_scale"].exp()

    def direction(anchors: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [
            cross_entropy([scale * cosine(a, o) for _, o in others], i % count)
            for i, (_, a) in enumerate(anchors)
        ]

    def mean(values: list[Tensor]) -> Tensor:
        return sum(values, torch.zeros((), dtype=torch.float64)) / max(1, len(values))

    both_text, both_image = text + masked_text, image + masked_image
    out = {"contrast": (mean(direction(both_text, both_image)) + mean(direction(both_image, both_text))) / 2}
    sides = [
        (mean(direction(masked, full)) + mean(direction(full, masked))) / 2
        for masked, full in ((masked_text, text), (masked_image, image))
    ]
    out["mir"] = (sides[0] + sides[1]) / 2

    per_caption, per_image = [], []
    for row in range(count):
        (t, t_cls), (mt, mt_cls), (v, v_cls), (mv, mv_cls) = (
            side[row] for side in (text, masked_text, image, masked_image)
        )
        queries = (mt + mt_cls) / 2
        keys = ((v[1:] + v_cls) / 2).detach()
        x = cross_blocks(w, "prediction_text.cross_attn_blocks", queries, keys, heads)
        logits = linear(w, "prediction_text.linear", norm(w, "prediction_text.ln", x))
        wrong = [
            cross_entropy(list(logits[i]), int(batch.tokens[row, i]))
            for i in batch.text_mask[row].nonzero()[:, 0]
        ]
        if wrong:
            per_caption.append(mean(wrong))

        shown = t if padding else t[: int(batch.tokens[row].argmax()) + 1]
        queries = linear(w, "prediction_image.decoder_embed", ((mv[1:] + mv_cls) / 2).detach())
        columns = round(math.sqrt(len(queries)))
        places = torch.stack([grid_position(i, columns, queries.shape[1]) for i in range(len(queries))])
        x = cross_blocks(
            w, "prediction_image.cross_attn_blocks", queries + places, (shown + t_cls) / 2, heads
        )
        x = norm(w, "prediction_image.proj.0", norm(w, "prediction_image.ln", x))
        rebuilt = linear(w, "prediction_image.proj.1", x)
        errors = []
        pieces = cut(batch.images[row], w["clip.visual.conv1.weight"].shape[-1])
        for i in batch.patch_mask[row].nonzero()[:, 0]:
            target = pieces[int(i)].permute(1, 2, 0).flatten()
            target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors.append(((rebuilt[i] - target) ** 2).mean())
        if errors:
            per_image.append(mean(errors))
    out["mlm"], out["mim"] = mean(per_caption), mean(per_image)
    return out | {"loss": out["contrast"] + 0.1 * out["mir"] + 20 * out["mlm"] + 250 * out["mim"]}
