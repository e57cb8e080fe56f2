"""The joint encoder, its regions and its matching losses."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import VisualBertConfig, VisualBertModel

from macco.pipeline.errors import UserError
from macco.train.losses.congruence import congruence
from macco.train.losses.matching import annealing, hardest, triplet_ranking
from macco.train.objectives.joint.encoder import JointEncoder, Pairs
from macco.train.objectives.joint.regions import geometry, pool_regions

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}


def encoder(seed: int = 0) -> JointEncoder:
    torch.manual_seed(seed)
    return JointEncoder.random(6, 30, **SIZES, initializer_range=0.3).double().eval()


def some_pairs(length: int = 5, regions: int = 4) -> Pairs:
    """Two captions of 2 and 3 words between two special tokens, images of 4 and 2 regions, padding after."""
    random = torch.Generator().manual_seed(1)
    ends, many = torch.tensor([[3], [4]]), torch.tensor([[4], [2]])
    place = torch.arange(length)
    low = torch.rand(2, regions, 2, generator=random, dtype=torch.float64) / 2
    return Pairs(
        tokens=torch.randint(1, 30, (2, length), generator=random),
        present=place <= ends,
        words=(place > 0) & (place < ends),
        features=torch.randn(2, regions, 6, generator=random, dtype=torch.float64),
        boxes=torch.cat([low, low + 0.4], -1),
        regions=torch.arange(regions) < many,
    )


def test_fused_attention_changes_nothing() -> None:
    torch.manual_seed(0)
    config = VisualBertConfig(vocab_size=30, visual_embedding_dim=13, pad_token_id=0, **SIZES)
    plain = VisualBertModel(config).double().eval()
    pairs = some_pairs()
    inputs = {
        "input_ids": pairs.tokens,
        "attention_mask": pairs.present,
        "visual_embeds": torch.cat([pairs.features, geometry(pairs.boxes)], -1),
        "visual_attention_mask": pairs.regions,
    }
    found = plain(**inputs, output_attentions=True)
    ours = JointEncoder(plain).double().eval()
    scores, attention = ours.with_attention(pairs)
    torch.testing.assert_close(scores, ours.head(found.pooler_output)[:, 0])
    torch.testing.assert_close(scores, ours(pairs))
    # Their renormalised slices are the same numbers as softmaxes within a block.
    last = found.attentions[-1]
    words, regions = pairs.words[0], pairs.regions[0]
    theirs = last[0][:, 5:, :5][:, regions][:, :, words]
    mine = attention.back[0][:, regions][:, :, words].softmax(-1)
    torch.testing.assert_close(mine, theirs / theirs.sum(-1, keepdim=True))


def test_every_layer_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = functional.scaled_dot_product_attention

    def counted(*args: Tensor, **kwargs: Tensor) -> Tensor:
        calls.append(len(args))
        return fused(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    encoder().with_attention(some_pairs())
    assert len(calls) == SIZES["num_hidden_layers"]


def test_padding_changes_nothing() -> None:
    model, short, long = encoder(), some_pairs(), some_pairs(7, 6)
    same = replace(
        long,
        tokens=torch.cat([short.tokens, long.tokens[:, 5:]], 1),
        features=torch.cat([short.features, long.features[:, 4:]], 1),
        boxes=torch.cat([short.boxes, long.boxes[:, 4:]], 1),
    )
    (scores, attention), (padded, wider) = model.with_attention(short), model.with_attention(same)
    torch.testing.assert_close(scores, padded)
    torch.testing.assert_close(congruence(attention), congruence(wider))
    torch.testing.assert_close(congruence(attention.mirrored()), congruence(wider.mirrored()))


def test_matching_and_congruence_reach_every_layer() -> None:
    model = encoder()
    scores, attention = model.with_attention(some_pairs())
    loss = triplet_ranking(scores, scores.flip(0)[:, None]) + congruence(attention).mean()
    torch.autograd.backward(loss)
    for layer in model.bert.encoder.layer:
        assert layer.attention.self.query.weight.grad.abs().sum() > 0
    assert model.bert.embeddings.visual_projection.weight.grad.abs().sum() > 0


def test_attention_is_in_float32_under_autocast() -> None:
    model, pairs = encoder().float(), some_pairs()
    pairs = replace(pairs, features=pairs.features.float(), boxes=pairs.boxes.float())
    with torch.autocast("cpu", torch.bfloat16):
        _, attention = model.with_attention(pairs)
        assert congruence(attention).dtype == attention.own.dtype == torch.float32


def test_pretrained_weights_are_read_and_the_projection_begins_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VisualBertConfig(vocab_size=30, visual_embedding_dim=99, pad_token_id=0, **SIZES)
    VisualBertModel(config).save_pretrained(tmp_path)
    model = JointEncoder.pretrained(str(tmp_path), feature_width=6).double().eval()
    assert model(some_pairs()).shape == (2,)
    torch.manual_seed(0)
    before, after = VisualBertModel(config).state_dict(), model.bert.state_dict()
    changed = {name for name in after if before[name].shape != after[name].shape}
    assert changed == {"embeddings.visual_projection.weight"}
    for name in after.keys() - changed - {"embeddings.visual_projection.bias"}:
        torch.testing.assert_close(after[name].float(), before[name])


def test_what_is_no_joint_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no VisualBERT"):
        JointEncoder.pretrained(str(tmp_path / "missing"), feature_width=6)
    with pytest.raises(UserError, match="bypass_transformer"):
        JointEncoder.random(6, 30, **SIZES, bypass_transformer=True)


def test_regions_are_means_by_area() -> None:
    patches = torch.arange(6.0, dtype=torch.float64).view(1, 6, 1)  # 2 rows of 3
    boxes = torch.tensor(
        [[[0, 0, 1, 1], [0, 0, 1 / 3, 0.5], [0.5, 0.5, 1, 1], [0.9, 0.9, 0.9, 0.9], [1.2, 0, 1.5, 0.4]]],
        dtype=torch.float64,
    )
    found = pool_regions(patches, boxes, (2, 3))[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([2.5, 0, (4 / 2 + 5) / 1.5, 5, 2], dtype=torch.float64))


def test_geometry() -> None:
    found = geometry(torch.tensor([[[0.1, 0.2, 0.5, 0.7]]]))
    torch.testing.assert_close(found[0, 0], torch.tensor([0.1, 0.2, 0.5, 0.7, 0.4, 0.5, 0.2]))


def test_triplet_ranking_is_the_formula() -> None:
    positive, negative = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([[0.1, 2.0], [0.5, -9.0], [1.0, 3.0]])
    valid = torch.tensor([[True, True], [True, False], [False, False]])

    def sig(x: Tensor) -> float:
        return 1 / (1 + math.exp(-x.item()))

    totals = [
        [max(0.0, 0.2 + sig(n) - sig(p)) for n, v in zip(row, which, strict=True) if v]
        for p, row, which in zip(positive, negative, valid, strict=True)
    ]
    expected = sum(sum(t) / max(1, len(t)) for t in totals) / 3
    assert triplet_ranking(positive, negative, valid).item() == pytest.approx(expected, rel=1e-6)


def test_the_hardest_are_wrong_and_likeliest() -> None:
    similarity = torch.tensor([[9.0, 1, 2, 3], [5, 9, 4, 0], [0, 1, 9, 2], [7, 8, 6, 9]])
    assert hardest(similarity, 2).tolist() == [[3, 2], [0, 2], [3, 1], [1, 0]]
    assert hardest(similarity, 31).shape == (4, 3)


@pytest.mark.parametrize(
    ("schedule", "begin", "end"),
    [
        ("exp", math.exp(-5), 1),
        ("linear", 0, 1),
        ("log", 0, 1 - math.exp(-5)),
        ("constant", 1, 1),
    ],
)
def test_annealing(schedule: str, begin: float, end: float) -> None:
    assert annealing(0, schedule) == pytest.approx(begin)
    assert annealing(1, schedule) == pytest.approx(end)
    assert annealing(0.3, schedule) <= annealing(0.6, schedule)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(UserError, match="linear"):
        annealing(0.5, "cosine")
