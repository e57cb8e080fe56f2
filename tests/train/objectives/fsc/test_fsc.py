"""FSC-CLIP: its losses against the authors' numbers, and in the loop."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from macco.pipeline.store import Store
from macco.train.clip.load import load_clip
from macco.train.clip.write import export_open_clip
from macco.train.data.batch import Batch
from macco.train.data.negatives import write_negatives
from macco.train.layers import parse, preset, resolve
from macco.train.loop.run import train
from macco.train.losses.contrastive import clip_contrast
from macco.train.objectives.fsc.batches import shuffled
from macco.train.objectives.fsc.losses import focal_hard_negatives, local_scores
from macco.train.objectives.fsc.model import FscModel
from macco.train.objectives.fsc.settings import FscConfig
from macco.train.objectives.objective import Step, load_objective
from macco.train.results.product import export_run
from macco.train.runs.metrics import read as read_metrics
from tests.support import DATA
from tests.support.drawn import drawn_store
from tests.support.tiny import CONTEXT, SIZE, VOCABULARY, gradients, tiny_clip
from tests.train.loop.test_train_run import CLIP, after, equal, never, quiet, state

VECTORS = DATA / "vectors" / "fscclip.safetensors"
CASES = ("all", "missing", "missing_small", "unequal", "one_type")
TERMS = ("contrast", "global", "local", "total")


def vectors(case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(VECTORS, "pt") as file:
        names = list(file.keys())
        found = {n.removeprefix(f"{case}."): file.get_tensor(n) for n in names if n.startswith(f"{case}.")}
        return found, json.loads(file.metadata()["cases"])[case]["kwargs"]


def dense(x: Tensor, present: Tensor) -> Tensor:
    """[B + M, ...], negatives type by type, to [B, 1 + K, ...]; what is absent repeats the caption."""
    kinds, count = present.shape
    rows, out = iter(range(count, len(x))), [x[:count]]
    for kind in range(kinds):
        out.append(torch.stack([x[next(rows)] if present[kind, i] else x[i] for i in range(count)]))
    return torch.stack(out, 1)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_authors(case: str) -> None:
    found, options = vectors(case)
    inputs = {n.removeprefix("input."): v for n, v in found.items() if n.startswith("input.")}
    leaves = {n: inputs[n].clone().requires_grad_() for n in ("image", "text", "patches", "tokens", "scale")}
    image, scale = leaves["image"], leaves["scale"]
    present = inputs["present"].view(-1, len(image)).bool()
    texts, tokens, attended = (
        dense(x, present) for x in (leaves["text"], leaves["tokens"], inputs["attended"].bool())
    )
    there, rows = present.T, present.any(0).sum()
    rule = {"gamma": options["focal_gamma"], "smoothing": options["neg_label_smoothing"], "reference": True}
    captions = texts[:, 0][None]
    scores = scale * (texts @ image[:, :, None])[..., 0]
    local = local_scores(leaves["patches"], tokens, attended, scale, reference=True)
    losses = {
        "contrast": clip_contrast(captions, image[None], captions, image[None], scale),
        "global": options["neg_loss_weight"] * focal_hard_negatives(scores, there, rows, **rule),
        "local": options["local_neg_weight"] * focal_hard_negatives(local, there, rows, **rule),
    }
    losses["total"] = losses["contrast"] + losses["global"] + losses["local"]
    for term in TERMS:
        assert losses[term].item() == pytest.approx(found[f"loss.{term}"].item(), rel=1e-9), term
        grads = torch.autograd.grad(losses[term], list(leaves.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(leaves, grads, strict=True):
            expected = found[f"grad.{term}.{name}"]
            gradient = torch.zeros_like(expected) if gradient is None else gradient
            torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-10, msg=f"{term} {name}")


def test_an_absent_negative_is_no_candidate_and_none_at_all_is_no_loss() -> None:
    scores = torch.tensor([[2.0, 1.0, 5.0], [1.0, 3.0, 0.5], [0.0, 9.0, 9.0]], requires_grad=True)
    present = torch.tensor([[True, False], [True, True], [False, False]])
    loss = focal_hard_negatives(scores, present, 2.0, gamma=2, smoothing=0.02)
    alone = [
        focal_hard_negatives(scores[:1, :2], present[:1, :1], 1.0, gamma=2, smoothing=0.02),
        focal_hard_negatives(scores[1:2], present[1:2], 1.0, gamma=2, smoothing=0.02),
    ]
    assert loss.item() == pytest.approx((alone[0] + alone[1]).item() / 2, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.isfinite().all()
    assert not gradient[2].any()
    assert gradient[0, 2] == 0
    none = focal_hard_negatives(scores, torch.zeros_like(present), 1.0, gamma=2, smoothing=0.02)
    assert none.item() == 0


def test_equal_patches_are_all_picked() -> None:
    patches = torch.ones(1, 3, 4, requires_grad=True)
    tokens = torch.randn(1, 2, 5, 4, requires_grad=True)
    attended = torch.ones(1, 2, 5, dtype=torch.bool)
    found = local_scores(patches, tokens, attended, torch.tensor(2.0))
    expected = (2 * torch.nn.functional.normalize(tokens, dim=-1).mean(-1) * 2).logsumexp(-1)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert patches.grad is not None
    assert patches.grad.isfinite().all()


def hard_batch(size: int = 6, kinds: int = 3) -> Batch:
    random = torch.Generator().manual_seed(3)

    def captions(count: int, length: int) -> Tensor:
        tokens = torch.randint(1, VOCABULARY - 2, (count, length), generator=random)
        tokens[:, 0], tokens[:, -1] = VOCABULARY - 2, VOCABULARY - 1
        return tokens

    return Batch(
        images=torch.randn(size, 3, SIZE, SIZE, generator=random, dtype=torch.float64),
        tokens=captions(size, CONTEXT - 4),
        ids=[str(i) for i in range(size)],
        negatives=captions(size * kinds, CONTEXT - 2).view(size, kinds, -1),
        negative_valid=torch.tensor([[True, False, True]] * (size - 1) + [[False] * 3]),
        image_ids=torch.tensor([0, 1, 2, 0, 4, 5][:size]),
        caption_ids=torch.arange(size),
        negative_ids=torch.arange(size * kinds).view(size, kinds),
    )


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_change_nothing_but_memory(size: int) -> None:
    config = resolve(parse(["objective=fsc", "fsc.negatives=2", f"micro_batch={size}"]))
    whole = resolve(parse(["objective=fsc", "fsc.negatives=2"]))
    found = []
    for each in (whole, config):
        objective = load_objective(each)
        model = objective.model(tiny_clip())
        losses = objective.gradients(model, hard_batch(), Step(0, 1), nullcontext)
        found.append((losses, gradients(model)))
    (losses, grads), (parts, part_grads) = found
    assert {"contrast", "global", "local", "loss"} == set(losses)
    for name, value in losses.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-9), name
    for name, gradient in grads.items():
        torch.testing.assert_close(part_grads[name], gradient, rtol=1e-6, atol=1e-10, msg=name)


def test_each_loss_can_be_off_and_the_contrast_is_clips() -> None:
    clip, batch = tiny_clip(), hard_batch()
    alone = FscModel(clip, FscConfig(negatives=2, global_weight=0, local_weight=0, duplicate_negatives=True))(
        batch
    )
    assert set(alone) == {"contrast", "loss"}
    tokens = torch.nn.functional.pad(batch.tokens, (0, CONTEXT - batch.tokens.shape[1]))
    image, text, scale = clip(batch.images, tokens)
    logits, right = scale * image @ text.T, torch.arange(6)
    expected = torch.nn.functional.cross_entropy(logits, right) + torch.nn.functional.cross_entropy(
        logits.T, right
    )
    assert alone["contrast"].item() == pytest.approx(expected.item() / 2, rel=1e-9)
    whole = FscModel(clip, FscConfig(negatives=2))(batch)
    assert whole["contrast"] < alone["contrast"]  # two pairs are of one image
    assert whole["loss"].item() == pytest.approx(
        (whole["contrast"] + 0.5 * whole["global"] + 0.2 * whole["local"]).item(), rel=1e-9
    )


def test_a_shuffle_moves_pairs_of_words() -> None:
    random = np.random.default_rng(0)
    caption = "a red dog sits on the small sofa today"
    found = [text for _ in range(20) if (text := shuffled(caption, random)) is not None]
    assert len(found) > 10
    for text in found:
        assert text != caption
        assert sorted(text.split()) == sorted(caption.split())
        assert sum(pair in text for pair in ("a red", "dog sits", "on the", "small sofa")) == 4
    assert shuffled("a dog", random) is None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = drawn_store(tmp_path_factory.mktemp("drawn"))
    write_negatives(Store.open(url), 0, quiet)
    return url


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    export_open_clip(open_clip.model.CLIP(**CLIP), folder, CLIP)
    return str(folder)


def test_a_run_trains_goes_on_bit_equal_and_exports_a_plain_clip(
    store: str, clip: str, tmp_path: Path
) -> None:
    settings = [
        "data.batch_size=10",
        "data.workers=0",
        "steps=4",
        "save_every=0",
        "log_every=1",
        "device=cpu",
    ]
    settings += [f"data.store={store}", f"model.name={clip}", "model.pretrained=", "optimizer.warmup=0"]
    config = resolve(preset("fsc-vitb32"), parse([*settings, "optimizer.lr=1e-4"]))
    assert train(config, tmp_path / "whole", never, quiet)
    assert not train(config, tmp_path / "cut", after(2), quiet)
    assert train(config, tmp_path / "cut", never, quiet)
    assert equal(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert {"contrast", "global", "local", "loss", "logit_scale"} <= set(read_metrics(tmp_path / "whole")[0])
    assert all(name.startswith("clip.") for name in state(tmp_path / "whole")["model"])
    export_run(tmp_path / "whole", tmp_path / "model")
    trained = load_clip(str(tmp_path / "model")).model.state_dict()
    assert trained.keys() == load_clip(clip).model.state_dict().keys()
    assert replace(config, seed=1).objective == "fsc"
