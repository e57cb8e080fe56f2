"""The towers' pooled features are open_clip's own, and masking replaces exactly what it should."""

from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch

from macco.pipeline.errors import UserError
from macco.train.clip.towers import Text, encode_both, image_tower
from macco.train.data.slots import Slots
from macco.train.objectives.macco.batches import MaskedBatch
from macco.train.objectives.macco.model import Macco
from macco.train.objectives.macco.settings import Method
from tests.support.tiny import CONTEXT, SIZE, VOCABULARY, tiny_batch, tiny_clip, tiny_macco


def custom_text_clip() -> Any:
    torch.manual_seed(0)
    return open_clip.model.CustomTextCLIP(
        embed_dim=16,
        vision_cfg={
            "image_size": SIZE, "patch_size": 8, "width": 24, "head_width": 12, "layers": 2, "pool_type": "avg",
        },
        text_cfg={
            "context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 2,
            "pool_type": "eos", "eos_id": VOCABULARY - 1, "proj_bias": True,
        },
    ).double()  # fmt: skip


def siglip() -> Any:
    """A SigLIP of timm parts: no class token, attention pooling, text read in both directions."""
    torch.manual_seed(0)
    return open_clip.model.CustomTextCLIP(
        embed_dim=192,
        init_logit_bias=-10,
        init_logit_scale=4.76,
        vision_cfg={
            "timm_model_name": "vit_tiny_patch16_224", "image_size": 224, "timm_pool": "map", "timm_proj": "none",
        },
        text_cfg={
            "context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 192, "heads": 3, "layers": 2,
            "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
        },
    )  # fmt: skip


@pytest.mark.parametrize("make", [tiny_clip, custom_text_clip])
def test_pooled_features_are_those_of_open_clip(make: Any) -> None:
    clip, batch = make(), tiny_batch()
    image, text = image_tower(clip.visual), Text(clip)
    with torch.no_grad():
        cls = image.encode(image.embed(batch.images), None).cls
        torch.testing.assert_close(cls, clip.encode_image(batch.images))
        cls = text.encode(text.embed(batch.tokens), text.ends(batch.tokens)).cls
        torch.testing.assert_close(cls, clip.encode_text(batch.tokens))


@pytest.mark.slow
def test_siglip_trains_with_every_loss() -> None:
    clip = siglip()
    tokens = tiny_batch().tokens
    tokens[tokens == 0] = 1  # its tokenizer pads with the end token
    tokens[tokens == VOCABULARY - 1] = 1
    batch = MaskedBatch(
        images=torch.randn(5, 3, 224, 224),
        tokens=tokens,
        text_mask=torch.rand(5, CONTEXT) < 0.3,
        patch_mask=torch.rand(5, 196) < 0.3,
        ids=list("abcde"),
    )
    model = Macco(clip.train(), Method())
    assert model.clip.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)
    losses = model(batch)
    losses["loss"].backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert model.image_mask_token.grad.abs().max() > 0
    with torch.no_grad():
        text, image = model.text, model.image
        cls = image.encode(image.embed(batch.images), None).cls
        torch.testing.assert_close(cls, clip.encode_image(batch.images))
        cls = text.encode(text.embed(tokens), text.ends(tokens)).cls
        torch.testing.assert_close(cls, clip.encode_text(tokens))
    ends = (tokens == 1).int().argmax(1)
    assert torch.equal(text.valid(tokens).sum(1), ends + 1)
    with pytest.raises(UserError, match="pad captions to 16"):
        model(replace(batch, tokens=tokens[:, :8], text_mask=batch.text_mask[:, :8], text_slots=None))


def test_masking_changes_masked_samples_only() -> None:
    clip, batch = tiny_clip(), tiny_batch()
    tower = image_tower(clip.visual)
    with torch.no_grad():
        plain, masked = encode_both(tower, batch.images, batch.patch_mask, torch.ones(24).double())
    assert masked is not None
    touched = (plain.cls - masked.cls).abs().amax(1) > 1e-9
    assert torch.equal(touched, batch.patch_mask.any(1))


@pytest.mark.parametrize("vision", [{"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}])
def test_a_tower_without_patches_is_refused(vision: dict[str, Any]) -> None:
    clip = tiny_clip(vision_cfg=vision)
    with pytest.raises(UserError, match="no patch tokens"):
        Macco(clip, Method())


def test_gradient_checkpointing_changes_no_number() -> None:
    grads = []
    for on in (False, True):
        model = tiny_macco()
        model.clip.set_grad_checkpointing(on)
        model(tiny_batch())["loss"].backward()
        grads.append(model.clip.visual.conv1.weight.grad)
    torch.testing.assert_close(*grads)


def test_uint8_images_are_normalised_as_open_clip_does() -> None:
    model = tiny_macco().float()
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    mean, std = (
        torch.tensor(x).view(3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    torch.testing.assert_close(model.pixels(images), (images / 255 - mean) / std)


def test_slots_list_what_is_set() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]).bool()
    slots = Slots.of(mask)
    assert slots.sample.tolist() == [0, 0, 2]
    assert slots.position.tolist() == [1, 2, 3]
    assert slots.cell.tolist() == [0, 1, 4]
    assert slots.count.tolist() == [2, 2, 1]
    assert (slots.width, slots.samples) == (2, 2)


def test_bf16_stays_near_float32() -> None:
    model, batch = tiny_macco().float(), tiny_batch()
    batch = replace(batch, images=batch.images.float())
    full = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(batch)
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(loss.item(), rel=0.05), name
