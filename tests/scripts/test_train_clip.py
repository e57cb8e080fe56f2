"""The script of the embedded CLIP trains what open_clip computes, and blinds it."""

import sys

import open_clip
import pytest
import torch
from torch.nn import functional as F

from tests.support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import train_clip
from clip_scenes import normalised


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    torch.manual_seed(0)
    corpus, vocabulary = train_clip.make_corpus(60, 1, tmp_path_factory.mktemp("clip"))
    described = train_clip.config(vocabulary)
    described["text_cfg"].pop("hf_tokenizer_name")
    clip = open_clip.CLIP(train_clip.WIDTH, described["vision_cfg"], described["text_cfg"])
    return corpus, clip


@torch.no_grad()
def test_features_are_those_of_open_clip(drawn):
    corpus, clip = drawn
    texts, pixels = corpus.tokens[:8, 0], normalised(corpus.arrays["images"][:8])
    text = train_clip.encode_text(clip, texts)[1] @ clip.text_projection
    torch.testing.assert_close(text, clip.encode_text(texts), atol=1e-5, rtol=1e-4)
    image = train_clip.encode_patches(clip.visual, pixels).mean(1)
    torch.testing.assert_close(image, clip.encode_image(pixels), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_loosened_projection_makes_the_same_features(drawn):
    corpus, clip = drawn
    before, size = clip.encode_text(corpus.tokens[:8, 0]), clip.text_projection.norm()
    train_clip.loosen(clip)
    torch.testing.assert_close(clip.encode_text(corpus.tokens[:8, 0]), before, atol=1e-5, rtol=1e-4)
    assert clip.text_projection.norm() < size / 2


@pytest.mark.slow
def test_a_blinded_text_tower_prefers_no_caption_to_its_swap(drawn):
    corpus, clip = drawn
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    train_clip.blind(clip, corpus, 60)
    changed = {name for name, value in clip.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"text_projection", "logit_scale"}
    with torch.no_grad():
        image = F.normalize(clip.encode_image(normalised(corpus.arrays["images"])), dim=-1)
        for kind in (0, 1):
            right, wrong = corpus.tokens, corpus.swapped[:, :, kind]
            there = (right != wrong).any(-1)
            gap = sum(
                sign
                * (F.normalize(clip.encode_text(texts[there]), dim=-1) * image[there.nonzero()[:, 0]]).sum(-1)
                for sign, texts in ((1, right), (-1, wrong))
            )
            assert abs(gap.mean() / gap.square().mean().sqrt()) < 0.1
