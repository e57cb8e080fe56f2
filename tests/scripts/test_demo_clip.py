"""The CLIP that ships: it opens by its name, knows the demo corpus, and what is trained from it opens anywhere."""

import open_clip
import pytest
import torch

from macco.pipeline.tokens import Tokenize
from macco.preprocess.demo.captions import captions
from macco.preprocess.demo.corpus import make
from macco.train.clip.load import load_clip
from macco.train.layers import parse, resolve
from macco.train.loop.run import train
from macco.train.results.product import export_run
from tests.support.drawn import drawn_store


@pytest.fixture(scope="module")
def clip():
    return load_clip("macco-demo")


def test_it_finds_the_image_of_a_caption(clip):
    drawn = [make("val", 31, index) for index in range(60)]
    images = torch.stack([clip.preprocess(scene.draw()) for scene, _ in drawn])
    texts = clip.tokenizer([captions(scene, rng)[0][0] for scene, rng in drawn])
    with torch.inference_mode():
        image, text = (
            clip.model.encode_image(images, normalize=True),
            clip.model.encode_text(texts, normalize=True),
        )
    right = (text @ image.T).argmax(1) == torch.arange(len(drawn))
    assert right.float().mean() > 0.6  # chance: 1 / 60


def test_any_text_has_tokens_with_places(clip):
    tokens = Tokenize(clip.tokenizer)("A zebra-striped Überraschung!")
    assert (tokens.ends - tokens.starts).sum() >= 26
    assert tokens.ids[-1] == tokens.ids.max()  # where open_clip pools


def test_a_run_from_it_is_exported_with_its_tokenizer(clip, tmp_path):
    store = drawn_store(tmp_path / "drawn")
    small = ["data.workers=0", "data.batch_size=8", "steps=1", "method.text_depth=1", "method.image_depth=1"]
    config = resolve(
        parse([f"data.store={store}", "model.name=macco-demo", "model.pretrained=", "device=cpu", *small])
    )
    assert train(config, tmp_path / "run", lambda: False, lambda line: None)
    export_run(tmp_path / "run", tmp_path / "clip")
    name = f"local-dir:{tmp_path / 'clip'}"
    model = open_clip.create_model(name)
    text = "a red dog on a blue sofa"
    assert torch.equal(open_clip.get_tokenizer(name)([text]), clip.tokenizer([text]))
    assert model.encode_text(clip.tokenizer([text])).shape == (1, 128)
