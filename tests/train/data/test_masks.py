"""Masks: exactly the tokens of the words, exactly the patches of the boxes."""

import numpy as np
import open_clip
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torchvision.transforms import RandomResizedCrop

from macco.pipeline.clean import clean
from macco.pipeline.errors import UserError
from macco.pipeline.tokens import Tokenize, Tokens
from macco.train.config import MaskConfig
from macco.train.data import masks
from macco.train.data.crops import RATIO, SCALE, draw_crop
from macco.train.data.masks import Crop, Drawn, Grounded, elsewhere
from tests.support.drawn import CAPTION

SIMPLE = open_clip.get_tokenizer("ViT-B-32")
# What a stretch of a caption becomes when it is cleaned, whatever stands around it.
PIECES = {
    "red": "red", "Dog": "dog", "ICE": "ice", "x": "x", "2": "2", "don't": "don't", ",": ",", "surfing": "surfing",
    "&amp;": "&", "&lt;": "<", "&#233;": "é", "ﬁre": "fire", "ﬀ": "ff", "“": '"', "’": "'", "Ｗ": "w", "é": "é",
    "e\u0301": "é", "È": "è", "猫": "猫", "😀": "😀", "İ": "i̇",
}  # fmt: skip


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    """A unigram tokenizer with SigLIP's normalizer and layout, trained on a few words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.NFKC()])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
    )
    core.train_from_iterator(["a red dog is sitting on a small sofa with reddish dogs"] * 20, trainer)
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return HFTokenizer(str(folder), context_length=32, clean="canonicalize")


def draw(concepts, caption, tokens, crop, grid, config, random):
    """The masks of one sample."""
    drawn = masks.draw(concepts, caption, tokens, crop, grid, config, random)
    text, patch = masks.masks([drawn], len(tokens.ids), grid)
    return text[0], patch[0]


def touching(tokens: Tokens, spans):
    """Which tokens share a character with any of the spans."""
    text, _ = masks.masks([Drawn(tokens, spans, [], square())], len(tokens.ids), 1)
    return text[0]


def patches(boxes, crop, grid):
    """The patches of one crop."""
    return masks.patches([[boxes]], [crop], grid)[0]


@st.composite
def captions(draw_):
    """A caption, its cleaned text, and for each cleaned character the characters of the caption behind it."""
    raw, cleaned, behind = "", "", []
    for number, word in enumerate(draw_(st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=12))):
        if number:
            space = draw_(st.sampled_from([" ", "  ", " \t "]))
            cleaned, raw = cleaned + " ", raw + space
            behind.append((len(raw) - len(space), len(raw)))
        plain = PIECES[word]
        if len(word) == len(plain):
            behind += [(len(raw) + i, len(raw) + i + 1) for i in range(len(word))]
        elif word == "ﬁre":
            behind += [(len(raw) + max(0, i - 1), len(raw) + max(0, i - 1) + 1) for i in range(4)]
        else:
            behind += [(len(raw), len(raw) + len(word))] * len(plain)
        raw, cleaned = raw + word, cleaned + plain
    return raw, cleaned, behind


def test_pieces_are_what_open_clip_makes_of_them():
    for raw, plain in PIECES.items():
        assert SIMPLE.clean_fn(f"a {raw} b") == f"a {plain} b"


@settings(max_examples=150, deadline=None)
@example(
    (
        "&#233; e\u0301 &#233; &#233;",
        "é é é é",
        [(0, 6), (6, 7), (7, 9), (9, 10), (10, 16), (16, 17), (17, 23)],
    ),
    [(0, 8)],
)
@given(captions(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4))
def test_masked_tokens_are_those_whose_characters_meet_a_span(made, ends):
    raw, cleaned, behind = made
    spans = [(min(pair), max(pair)) for pair in ends]
    assert SIMPLE.clean_fn(raw) == cleaned
    tokens = Tokenize(SIMPLE)(raw)
    # The places of tokens in the cleaned text, by decoding: each token's bytes follow the last one's.
    at, expected = 0, [False]
    encoded = cleaned.encode()
    character = [i for i, c in enumerate(cleaned) for _ in c.encode()]
    for number in tokens.ids[1:-1]:
        piece = bytes(SIMPLE.byte_decoder[c] for c in SIMPLE.decoder[number].removesuffix("</w>"))
        while encoded[at : at + 1].isspace():
            at += 1
        assert encoded[at : at + len(piece)] == piece
        mine = {i for c in character[at : at + len(piece)] for i in range(*behind[c])}
        expected.append(any(start <= i < end for i in mine for start, end in spans))
        at += len(piece)
    assert touching(tokens, spans).tolist() == [*expected, False]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="aB &;#3x<>_-'é\u0301ﬁ“\t\n\x85Σσ", max_size=30))
def test_ids_are_the_tokenizers_own_for_any_text(text):
    tokens = Tokenize(SIMPLE)(text)
    theirs = SIMPLE([text])[0]
    assert theirs[: len(tokens.ids)].tolist() == tokens.ids.tolist()
    assert not theirs[len(tokens.ids) :].any()
    assert ((tokens.starts >= 0) & (tokens.starts <= tokens.ends) & (tokens.ends <= len(text))).all()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="aB &;#3x<>_-'é\u0301ﬁ“\t\n\x85ΣİÃ©â€™", max_size=30))
@pytest.mark.parametrize("kind", ["lower", "whitespace", "canonicalize"])
def test_cleaning_is_open_clips_own(kind, text):
    cleaner = open_clip.tokenizer.get_clean_fn(kind)
    aligned = clean(text, cleaner)
    assert aligned.text == cleaner(text)
    assert len(aligned.starts) == len(aligned.ends) == len(aligned.text)


def test_the_second_red_and_the_right_in():
    caption = "In a red house, a man in a red coat"
    tokens = Tokenize(SIMPLE)(caption)
    words = [SIMPLE.decode([number]).strip() for number in tokens.ids]
    mask = touching(tokens, [(22, 24), (27, 30)])
    assert [words[i] for i in np.flatnonzero(mask)] == ["in", "red"]
    assert np.flatnonzero(mask).tolist() == [8, 10]


def test_truncation_keeps_the_end_token():
    short = SimpleTokenizer(context_length=6)
    tokens = Tokenize(short)("one two three four five six")
    assert tokens.ids.tolist() == short(["one two three four five six"])[0].tolist()
    assert touching(tokens, [(0, 100)]).tolist() == [False, True, True, True, True, False]


def test_sentencepiece_with_canonical_cleaning(sentencepiece):
    caption = "A red, small_dog  is Sitting."
    tokens = Tokenize(sentencepiece)(caption)
    theirs = sentencepiece([caption])[0].tolist()
    assert theirs[: len(tokens.ids)] == tokens.ids.tolist()
    for word in ("red", "small", "dog", "Sitting"):
        start = caption.index(word)
        mask = touching(tokens, [(start, start + len(word))])
        assert sentencepiece.tokenizer.decode(tokens.ids[mask]).strip() == word.lower()
    assert not touching(tokens, [(0, 100)])[-1]
    assert not touching(tokens, [(5, 6)]).any()  # the comma is gone


def test_tokenizers_that_cannot_tell_are_refused():
    with pytest.raises(UserError, match="not supported"):
        Tokenize(SimpleTokenizer(reduction_mask="random"))


def square(**changes):
    return Crop(
        **(
            {"top": 0, "left": 0, "height": 100, "width": 100, "image_width": 100, "image_height": 100}
            | changes
        )
    )


def test_patches_share_area_with_a_box():
    mask = patches(np.array([[0.25, 0.0, 0.51, 0.5]], np.float32), square(), 4)
    assert np.flatnonzero(mask).tolist() == [1, 2, 5, 6]


def test_a_box_outside_the_crop_masks_nothing():
    crop = square(left=50, width=50)
    assert not patches(np.array([[0.1, 0.1, 0.5, 0.9]], np.float32), crop, 7).any()
    assert not patches(np.empty((0, 4), np.float32), crop, 7).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(*[st.integers(0, 64)] * 4), min_size=1, max_size=3))
def test_patches_are_those_that_hold_a_pixel_of_a_box(seed, corners):
    """Against pixels: paint the boxes, cut the crop out, and look into each patch."""
    random = np.random.default_rng(seed)
    width, height = (int(n) for n in random.integers(20, 200, 2))
    crop = draw_crop(width, height, random)
    boxes = np.array(
        [[min(a, c) / 64, min(b, d) / 64, max(a, c) / 64, max(b, d) / 64] for a, b, c, d in corners],
        np.float32,
    )
    grid, fine = 5, 40
    painted = np.zeros((grid * fine, grid * fine), bool)
    x = crop.left + (np.arange(grid * fine) + 0.5) * crop.width / (grid * fine)
    y = crop.top + (np.arange(grid * fine) + 0.5) * crop.height / (grid * fine)
    for x0, y0, x1, y1 in boxes * [width, height, width, height]:
        painted |= ((y0 < y) & (y < y1))[:, None] & ((x0 < x) & (x < x1))
    seen = painted.reshape(grid, fine, grid, fine).any((1, 3)).ravel()
    mask = patches(boxes, crop, grid)
    assert mask[seen].all()
    # A sliver thinner than the pixels painted may be missed by them, so only boxes shrunk by two must agree.
    wider = sum(
        patches(boxes + np.array([[d, e, d, e]], np.float32), crop, grid)
        for d in (-0.06, 0.06)
        for e in (-0.06, 0.06)
    )
    assert not mask[~seen & (wider == 0)].any()


CONCEPTS = [
    Grounded("object", 0, ((0, 9),), (6, 9), np.array([[0, 0, 0.5, 0.5]], np.float32)),
    Grounded("attribute", 0, ((2, 5),), (2, 5), np.array([[0, 0, 0.5, 0.5]], np.float32)),
    Grounded("object", 1, ((24, 36),), (32, 36), np.array([[0.5, 0.5, 1, 1]], np.float32)),
    Grounded("attribute", 1, ((26, 31),), (26, 31), np.array([[0.5, 0.5, 1, 1]], np.float32)),
    Grounded(
        "relation", 4, ((13, 23),), (13, 20), np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    ),
]


def masked(seed=0, concepts=CONCEPTS, **changes):
    tokens = Tokenize(SIMPLE)(CAPTION)
    words = [SIMPLE.decode([number]).strip() for number in tokens.ids]
    config = MaskConfig(**({"rectangle": 0.0} | changes))
    text, patch = draw(concepts, CAPTION, tokens, square(), 2, config, np.random.default_rng(seed))
    return [words[i] for i in np.flatnonzero(text)], tuple(np.flatnonzero(patch).tolist())


def test_all_words_in_the_text_and_one_phrase_in_the_image():
    drawn = {masked(seed)[1] for seed in range(50)}
    assert masked()[0] == ["red", "sitting", "on", "small"]
    assert drawn == {(0,), (3,), (0, 3)}


def test_which_words_count():
    assert masked(relations="content")[0] == ["red", "sitting", "small"]
    assert masked(relations="none")[0] == ["red", "small"]
    assert masked(objects=True)[0] == ["red", "dog", "sitting", "on", "small", "sofa"]
    assert masked(attributes=False)[0] == ["sitting", "on"]
    assert {masked(seed, attributes=False)[1] for seed in range(20)} == {(0, 3)}


def test_the_same_concept_in_both():
    words = {(0,): ["red"], (3,): ["small"], (0, 3): ["sitting", "on"]}
    seen = set()
    for seed in range(50):
        text, patch = masked(seed, same=True)
        assert text == words[patch]
        seen.add(patch)
    assert seen == set(words)


def test_words_without_boxes_are_masked_all_the_same():
    bare = [Grounded(c.kind, c.phrase, c.spans, c.head, c.boxes[:0]) for c in CONCEPTS]
    assert masked(concepts=bare) == (["red", "sitting", "on", "small"], ())


def test_random_masks_have_their_shares():
    tokens = Tokenize(SIMPLE)("one two three four five six seven eight nine ten " * 2)
    for seed in range(50):
        text, patch = draw([], "", tokens, square(), 14, MaskConfig(random=True), np.random.default_rng(seed))
        assert text.sum() == 3
        assert not text[[0, -1]].any()
        assert 0.7 < patch.mean() < 0.8
        grid = patch.reshape(14, 14)
        assert grid.sum() == grid.any(0).sum() * grid.any(1).sum()  # a rectangle


def test_boxes_elsewhere_keep_their_size_and_stay_inside() -> None:
    drawn = np.random.default_rng(0).random((2000, 2, 2), np.float32)
    boxes = np.concatenate([drawn.min(1), drawn.max(1)], 1)
    moved = elsewhere(boxes, 0.1, np.random.default_rng(1))
    assert 150 < (moved != boxes).any(1).sum() < 250
    np.testing.assert_allclose(moved[:, 2:] - moved[:, :2], boxes[:, 2:] - boxes[:, :2], atol=1e-6)
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    np.testing.assert_array_equal(elsewhere(boxes, 0.0, np.random.default_rng(1)), boxes)


def test_the_rectangle_comes_one_time_in_ten():
    drawn = [sum(masked(seed, rectangle=0.1)[1]) for seed in range(1)]
    assert len(drawn) == 1
    tokens = Tokenize(SIMPLE)(CAPTION)
    share = np.mean(
        [
            draw(CONCEPTS, CAPTION, tokens, square(), 14, MaskConfig(), np.random.default_rng(seed))[1].mean()
            > 0.7
            for seed in range(1000)
        ]
    )
    assert 0.07 < share < 0.13


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="image_ratio"):
        MaskConfig(image_ratio=75)
    with pytest.raises(UserError, match="relations"):
        MaskConfig(relations="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(640, 480), (300, 1000), (1000, 300), (224, 224)])
def test_crops_are_distributed_as_torchvisions(size):
    import torch

    width, height = size
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    mine = np.array(
        [[c.top, c.left, c.height, c.width] for c in (draw_crop(*size, random) for _ in range(1000))]
    )
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(1000)])
    scale = np.array([height, width, height, width])
    np.testing.assert_allclose(mine.mean(0) / scale, theirs.mean(0) / scale, atol=0.01)
    np.testing.assert_allclose(mine.std(0) / scale, theirs.std(0) / scale, atol=0.01)
    assert (mine[:, :2] + mine[:, 2:] <= [height, width]).all()
