"""Pairs of one image, and equal captions, are no wrong answers to each other."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from macco.train.losses.contrastive import clip_contrast, intra_modal
from macco.train.losses.pairs import PairIds, same, true_negatives
from tests.support.tiny import tiny_batch, tiny_macco

IDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=8)
SCALE = torch.tensor(3.0, dtype=torch.float64)


def ids(pairs: list[tuple[int, int]]) -> PairIds:
    image, caption = torch.tensor(pairs, dtype=torch.int64).T
    return PairIds(image, caption)


def cross_entropy(anchor: Tensor, right: Tensor, wrong: list[Tensor]) -> Tensor:
    scores = SCALE * torch.stack([anchor @ right, *(anchor @ other for other in wrong)])
    return scores.logsumexp(0) - scores[0]


@given(IDS)
def test_same_is_what_shares_an_image_or_a_caption_and_is_another(pairs: list[tuple[int, int]]) -> None:
    found = same(ids(pairs), ids(pairs), 0)
    for i, (image, caption) in enumerate(pairs):
        for j, (other, text) in enumerate(pairs):
            assert found[i, j] == (i != j and (image == other or caption == text))
    half = ids(pairs[len(pairs) // 2 :])
    assert torch.equal(same(half, ids(pairs), len(pairs) // 2), found[len(pairs) // 2 :])


@given(IDS, st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_a_negative_is_true_of_an_image_that_has_it_as_a_caption(
    pairs: list[tuple[int, int]], negatives: list[int]
) -> None:
    found = true_negatives(ids(pairs), ids(pairs), torch.tensor(negatives))
    for i, (image, _) in enumerate(pairs):
        captions = {caption for other, caption in pairs if other == image}
        assert found[i].tolist() == [number not in captions for number in negatives]


@given(IDS, st.integers(1, 2), st.booleans())
def test_the_contrast_is_the_written_formula(pairs: list[tuple[int, int]], views: int, hard: bool) -> None:
    random = torch.Generator().manual_seed(len(pairs))
    count = len(pairs)
    text, image = F.normalize(torch.randn(2, views, count, 4, generator=random, dtype=torch.float64), dim=-1)
    made = F.normalize(torch.randn(3, 4, generator=random, dtype=torch.float64), dim=-1) if hard else None
    counted = torch.rand(count, 3, generator=random) < 0.5 if hard else None
    shared = same(ids(pairs), ids(pairs), 0)
    expected = []
    for anchors, others in ((text, image), (image, text)):
        rows = []
        for view in range(views):
            for i in range(count):
                wrong = [
                    others[v, j]
                    for v in range(views)
                    for j in range(count)
                    if not shared[i, j] and (v, j) != (0, i)
                ]
                if made is not None and counted is not None and anchors is image:
                    wrong += [made[k] for k in range(3) if counted[i, k]]
                rows.append(cross_entropy(anchors[view, i], others[0, i], wrong))
        expected.append(torch.stack(rows).mean())
    found = clip_contrast(text, image, text, image, SCALE, 0, made, counted, shared)
    assert found.item() == pytest.approx(((expected[0] + expected[1]) / 2).item(), rel=1e-9)
    if views == 2:
        masked, full = text[1], text[0]
        rows = [
            cross_entropy(a[i], b[i], [b[j] for j in range(count) if j != i and not shared[i, j]])
            for a, b in ((masked, full), (full, masked))
            for i in range(count)
        ]
        found = intra_modal(masked, full, masked, full, SCALE, 0, shared)
        assert found.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-9)


def test_the_switch_counts_them_again_and_batches_without_ids_have_none() -> None:
    batch = tiny_batch()
    of_one = replace(batch, image_ids=torch.zeros(5, dtype=torch.int64), caption_ids=torch.arange(5))
    plain = tiny_macco()(batch)
    apart = tiny_macco()(replace(of_one, image_ids=torch.arange(5)))
    counted = tiny_macco(duplicate_negatives=True)(of_one)
    alone = tiny_macco()(of_one)
    for name in ("contrast", "mir"):
        assert torch.equal(plain[name], apart[name])
        assert torch.equal(plain[name], counted[name])
        assert alone[name] < plain[name]
    # All pairs are of one image: its own masked twin is the only wrong answer left.
    assert alone["mir"].item() == pytest.approx(0, abs=1e-9)
    assert math.isfinite(alone["contrast"].item())


def test_masked_pairs_may_be_wrong_answers_without_being_anchors() -> None:
    batch = tiny_batch()
    model = tiny_macco(anchors="full", mir=0.0, mlm=0.0, mim=0.0)
    encodings = model.encode(batch, batch.images)
    features = model.features(encodings)
    text, image, masked_text, masked_image = features.transpose(0, 1)
    scale = model.clip.logit_scale.exp()
    right = torch.arange(5)
    expected = [
        F.cross_entropy(scale * anchors @ torch.cat(candidates).T, right)
        for anchors, candidates in ((text, (image, masked_image)), (image, (text, masked_text)))
    ]
    found = model.contrastive(features)["contrast"]
    assert found.item() == pytest.approx(((expected[0] + expected[1]) / 2).item(), rel=1e-9)
