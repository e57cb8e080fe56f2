"""Captions of more tokens than the model reads."""

from itertools import islice

import numpy as np
import open_clip
import pytest

from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize
from macco.train.config import MaskConfig
from macco.train.data.masks import Crop, Grounded, draw, masks
from macco.train.objectives.macco.batches import open_training_data

WHOLE, SHORT = (Tokenize(open_clip.get_tokenizer("ViT-B-32", context_length=n)) for n in (77, 8))
CAPTION = "a red dog sits on a big blue sofa"
CROP = Crop(0, 0, 100, 100, 100, 100)


def concept(word: str, number: int, box: tuple[float, ...]) -> Grounded:
    start = CAPTION.index(word)
    span = (start, start + len(word))
    return Grounded("attribute", number, (span,), span, np.array([box], np.float32))


def test_tokens_tell_that_they_are_cut() -> None:
    assert not WHOLE(CAPTION).cut
    assert SHORT(CAPTION).cut
    assert not SHORT("a red dog sits on it").cut
    assert [SHORT(CAPTION).beyond([(CAPTION.index(word), 99)]) for word in ("dog", "big", "blue")] == [
        False, True, True,
    ]  # fmt: skip
    assert not WHOLE(CAPTION).beyond([(CAPTION.index("blue"), 99)])


def masked(concepts, tokens, config: MaskConfig, seed: int):
    drawn = draw(concepts, CAPTION, tokens, CROP, 2, config, np.random.default_rng(seed))
    text, patch = masks([drawn], len(tokens.ids), 2)
    return text[0], patch[0]


@pytest.mark.parametrize("same", [False, True])
def test_what_lies_beyond_masks_neither_words_nor_patches(same: bool) -> None:
    red, blue = concept("red", 0, (0, 0, 0.5, 1)), concept("blue", 1, (0.5, 0, 1, 1))
    config = MaskConfig(rectangle=0.0, same=same)
    seen = set()
    for seed in range(20):
        text, patch = masked([red, blue], SHORT(CAPTION), config, seed)
        assert text.tolist() == [False, False, True, False, False, False, False, False]
        assert patch.tolist() == [True, False, True, False]
        _, other = masked([red, blue], WHOLE(CAPTION), config, seed)
        seen.add(tuple(other.tolist()))
    assert len(seen) == 2


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.processes)])
def test_a_loader_counts_what_is_cut(store: Store, workers: int) -> None:
    def loader(length: int):
        tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=length)
        options = {
            "image_size": 32,
            "patch_size": 16,
            "batch_size": 8,
            "workers": workers,
            "log": lambda line: None,
        }
        return open_training_data(store.url, tokenizer, **options)

    with_all, few = loader(77), loader(8)
    assert len(list(islice(with_all, 3))) == len(list(islice(few, 3))) == 3
    assert with_all.said_of_cuts() is None
    assert few.captions == 24
    assert 0 < few.captions_cut <= 24
    assert few.concepts_cut > 0
    assert "more than the 8 tokens" in few.said_of_cuts()
    for one in (with_all, few):
        one.close()


def test_a_caption_that_comes_again_is_counted_once(store: Store) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=8)
    loader = open_training_data(
        store.url, tokenizer, image_size=32, patch_size=16, batch_size=8, workers=0, log=lambda line: None
    )
    handed = 8 * len(list(loader))
    first = loader.captions, loader.captions_cut, loader.concepts_cut
    assert first[0] == handed <= loader.samples
    assert len(list(loader)) == len(list(loader)) == len(loader)
    assert loader.captions == handed
    assert loader.captions_cut <= handed
    assert f" of {handed:,} captions" in loader.said_of_cuts()
