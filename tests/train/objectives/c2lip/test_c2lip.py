"""C2LIP: its losses against the authors' numbers, and what is ours."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from macco.pipeline.tokens import Tokenize
from macco.train.data.masks import Grounded
from macco.train.data.recipe import number
from macco.train.data.rows import Sample
from macco.train.data.texts import TextSet
from macco.train.objectives.c2lip.batches import PhrasePairs
from macco.train.objectives.c2lip.losses import attended_cosines
from macco.train.objectives.c2lip.model import C2lipModel
from macco.train.objectives.c2lip.settings import C2lipConfig
from tests.check_vectors import check
from tests.support import DATA
from tests.support.drawn import jpeg
from tests.support.objective_batches import padded, phrase_batch
from tests.support.tiny import tiny_clip
from tests.train.clip.test_towers import siglip

NONE = np.empty((0, 4), np.float32)


def test_losses_and_gradients_are_the_authors() -> None:
    rows = check(DATA / "vectors" / "c2lip.safetensors")
    assert len(rows) == 157
    assert [row for row in rows if not row.error <= 1e-9] == []


def test_attended_patches_are_pooled_as_written_down() -> None:
    random = torch.Generator().manual_seed(0)
    patches, phrases = (F.normalize(torch.randn(*n, generator=random), dim=-1) for n in ((2, 7, 5), (4, 5)))
    within = torch.rand(2, 4, 7, generator=random) < 0.5
    within[..., 0] = True
    near = torch.einsum("bpd,nd->bnp", patches, phrases).masked_fill(~within, -torch.inf)
    pooled = F.normalize(torch.einsum("bnp,bpd->bnd", near.softmax(-1), patches), dim=-1)
    expected = (pooled * phrases).sum(-1)
    torch.testing.assert_close(attended_cosines(patches, phrases, within), expected)


def test_equal_phrases_of_two_images_are_no_negatives_of_each_other() -> None:
    """Pairs 0 and 3 have one phrase, 1 and 5 another, and 0 and 3 are of one image."""
    clip, batch = tiny_clip(), phrase_batch()

    def npc(**switches: bool) -> torch.Tensor:
        return C2lipModel(clip, C2lipConfig(**switches)).double()(batch)["npc"]

    merged, counted = npc(), npc(duplicate_negatives=True)
    assert merged < counted
    apart = replace(batch, image_ids=torch.arange(6), caption_ids=torch.arange(6))
    distinct = torch.arange(len(batch.phrases))
    unlike = replace(apart, phrases=replace(batch.phrases, ids=distinct))
    assert C2lipModel(clip, C2lipConfig()).double()(unlike)["npc"] == counted
    # Of two captions with one phrase each, the same, no pairing is left but the two right ones.
    pair = next(replace(apart, image_ids=torch.arange(6)).split(1)), list(apart.split(1))[3]
    both = replace(
        pair[0], tokens=torch.cat([one.tokens for one in pair]), images=torch.cat([p.images for p in pair]),
        ids=["0", "3"], image_ids=torch.tensor([0, 3]), caption_ids=torch.tensor([0, 3]),
        phrases=TextSet(pair[0].phrases.tokens, torch.tensor([0, 0]), torch.arange(2), torch.tensor([7, 7])),
    )  # fmt: skip
    model = C2lipModel(clip, C2lipConfig()).double()
    features, _ = model.encode(both)
    cosine = (features["image"] * features["phrases"]).sum(1)
    expected = -F.logsigmoid(model.scale() * cosine + model.bias()).mean()
    assert model(both)["npc"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_each_loss_can_be_off_and_a_clip_gets_a_bias() -> None:
    clip, batch = tiny_clip(), phrase_batch()
    whole = C2lipModel(clip, C2lipConfig()).double()
    losses = whole(batch)
    expected = losses["contrast"] + losses["npc"] + 0.01 * losses["xac"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    losses["loss"].backward()
    assert whole.new_state() == {"logit_bias"}
    assert whole.logit_bias is not None
    assert whole.logit_bias.grad is not None
    for off in ("npc", "xac"):
        assert set(C2lipModel(clip, C2lipConfig(**{off: 0})).double()(batch)) == {*losses} - {off}
    assert set(C2lipModel(clip, C2lipConfig(npc=0, xac=0)).double()(batch)) == {"contrast", "loss"}


@pytest.mark.slow
def test_siglip_trains_with_its_own_bias_and_head() -> None:
    batch = phrase_batch(2)
    tokens = F.pad(batch.tokens, (0, 4), value=1)
    phrases = batch.phrases
    spread = F.pad(phrases.tokens, (0, 16 - phrases.tokens.shape[1]), value=1)
    spread[spread == 0] = 1
    batch = replace(
        batch, tokens=tokens, images=torch.randn(2, 3, 224, 224), phrases=replace(phrases, tokens=spread)
    )
    model = C2lipModel(siglip().train(), C2lipConfig())
    assert model.new_state() == set()
    assert model.bias().item() == -10
    model(batch)["loss"].backward()
    trunk = model.clip.visual.trunk
    for weight in (trunk.attn_pool.kv.weight, trunk.attn_pool.mlp.fc2.weight, model.clip.logit_bias):
        assert weight.grad.abs().max() > 0


def sample(caption: str, concepts: list[Grounded], source: str) -> Sample:
    size = len(jpeg(3))
    return Sample(
        "d/s/k/0", "s", caption, 1, source, None, 0, size, concepts, [], np.empty((0, 5), np.float32)
    )


def test_phrases_are_the_captions_objects_each_once(tmp_path) -> None:
    file = tmp_path / "image.jpg"
    file.write_bytes(jpeg(3))
    caption = "A red dog by a man and a man"
    corner = np.array([[0, 0, 0.2, 0.2]], np.float32)
    concepts = [
        Grounded("object", 0, ((0, 9),), (6, 9), corner),
        Grounded("attribute", 0, ((2, 5),), (2, 5), NONE),
        Grounded("object", 1, ((13, 18),), (15, 18), NONE),
        Grounded("object", 2, ((23, 28),), (25, 28), NONE),
    ]
    tokenize = Tokenize(open_clip.get_tokenizer("ViT-B-32"))
    recipe = PhrasePairs(tokenize=tokenize, image_size=32, patch_size=8, boxes=True)
    samples = [sample(caption, concepts, str(file)), sample("nothing here", [], str(file))]
    batch = recipe.collate([recipe.make(one, np.random.default_rng(0)) for one in samples])
    assert batch.phrases.owner.tolist() == [0, 0, 1]
    said = [tokenize.tokenizer.decode(batch.phrases.tokens[k].tolist()) for k in batch.phrases.which]
    for text, expected in zip(said, ("a red dog", "a man", "nothing here"), strict=True):
        assert f"<start_of_text>{expected} <end_of_text>" in text
    assert batch.phrases.patches is not None
    assert 0 < batch.phrases.patches[0].sum() < 4  # the upper left corner
    assert batch.phrases.patches[1:].all()


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=8), st.integers(1, 4)
)
@settings(deadline=None, max_examples=50)
def test_parts_of_a_text_set_hold_its_texts(owned: list[list[int]], size: int) -> None:
    texts = [[np.arange(1 + k, dtype=np.int64) + k for k in own] for own in owned]
    whole = TextSet.of(texts, padded, number)
    assert len(whole.tokens) == len({k for own in owned for k in own})
    found = []
    for start in range(0, len(owned), size):
        part = whole.part(start, start + size)
        assert len(part.tokens) == len(set(part.which.tolist()))
        found += [
            (int(o) + start, part.tokens[w].tolist()) for o, w in zip(part.owner, part.which, strict=True)
        ]
    assert found == [
        (int(o), whole.tokens[w].tolist()) for o, w in zip(whole.owner, whole.which, strict=True)
    ]
