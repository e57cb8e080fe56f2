"""FSC-CLIP: its losses against the authors' numbers, and in the loop."""

import numpy as np
import pytest
import torch

from macco.train.objectives.fsc.batches import shuffled
from macco.train.objectives.fsc.losses import focal_hard_negatives, local_scores
from macco.train.objectives.fsc.model import FscModel
from macco.train.objectives.fsc.settings import FscConfig
from tests.check_vectors import check
from tests.support import DATA
from tests.support.objective_batches import hard_batch
from tests.support.tiny import CONTEXT, tiny_clip

VECTORS = DATA / "vectors" / "fscclip.safetensors"


def test_losses_and_gradients_are_the_authors() -> None:
    rows = check(VECTORS)
    assert len(rows) == 5 * (4 + 4 * 5)
    assert [row for row in rows if not row.error <= 1e-9] == []


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
