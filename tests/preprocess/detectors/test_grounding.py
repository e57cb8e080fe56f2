"""Grounding: packing, phrase scores, NMS, and both backends with random weights of the real architectures."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.ops import batched_nms, box_convert
from transformers import BertTokenizerFast, GroundingDinoImageProcessor

from macco.pipeline.errors import UserError
from macco.preprocess.detectors import check_detector, detector_fingerprint, load_detector
from macco.preprocess.detectors.canvas import ImageRule, stack
from macco.preprocess.detectors.convert import convert_checkpoint
from macco.preprocess.detectors.prompts import Packer, first_fit, normalize, phrase_scores, select
from tests.support import DATA

VOCAB = DATA / "bert/vocab.txt"
TOKENIZER = BertTokenizerFast(str(VOCAB), do_lower_case=True)
SMALL = ImageRule(96, 160)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def load(spec: str, **kwargs: object):
    detector = load_detector(spec, device="cpu", box_threshold=0.0, nms_iou=0.9, **kwargs)
    detector.network.rule = SMALL
    return detector


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Blurred noise: something for the backbone to see."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


PHRASES = [
    ["red dog", "small sofa", "ice cream truck"],
    ["cat"],
    ["woman", "blue umbrella", "wet street", "bus", "traffic light"],
    ["red dog", "tree"],
]
SIZES = [
    (96, 128),
    (96, 104),
    (192, 240),
    (80, 100),
]  # all on one canvas of 96 x 128, with masks of their own

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
captions = st.lists(st.one_of(words, st.sampled_from(["dog", "Red  dog.", "st. bernard", "?", "red dog"])))


@settings(max_examples=60, deadline=None)
@given(captions, st.integers(8, 40))
def test_each_phrase_stands_in_one_prompt_within_the_limit(phrases: list[str], limit: int) -> None:
    packed = Packer(TOKENIZER, limit)([phrases])[0]
    slots = [slot for prompt in packed.prompts for slot in prompt.slots]
    assert sorted(slots) == list(range(len(slots)))
    assert set(packed.slot_of) - {-1} == set(slots)
    for prompt in packed.prompts:
        assert len(prompt.input_ids) <= limit
        assert prompt.input_ids == TOKENIZER(prompt.text)["input_ids"]  # pieces never cross a space
        texts = prompt.text.removesuffix(" .").split(" . ")
        for text, (start, end) in zip(texts, prompt.spans, strict=True):
            assert prompt.input_ids[start:end] == TOKENIZER(text, add_special_tokens=False)["input_ids"]
            assert prompt.input_ids[end] == 1012
    for phrase, slot in zip(phrases, packed.slot_of, strict=True):
        assert (slot >= 0) == bool(TOKENIZER.tokenize(normalize(phrase)))


def test_long_phrase_is_cut_between_words() -> None:
    packer = Packer(TOKENIZER, 16)
    prompt = packer([["guitarist surfboard " * 10]])[0].prompts[0]
    assert len(prompt.input_ids) <= 16
    assert set(prompt.text.split()) == {"guitarist", "surfboard", "."}
    assert len(packer([["!" * 50]])[0].prompts[0].input_ids) == 16


def test_phrases_are_equal_after_normalization() -> None:
    packed = Packer(TOKENIZER, 256)([["Red dog", "red  dog.", "", "cat", "..."], []])
    assert packed[0].slot_of.tolist() == [0, 0, -1, 1, -1]
    assert packed[0].prompts[0].text == "red dog . cat ."
    assert packed[1].prompts == []


@given(st.lists(st.integers(1, 10)), st.integers(10, 30))
def test_first_fit(lengths: list[int], room: int) -> None:
    bins = first_fit(lengths, room)
    assert sorted(item for items in bins for item in items) == list(range(len(lengths)))
    assert all(items == sorted(items) for items in bins)
    loads = [sum(lengths[item] for item in items) for items in bins]
    assert all(load <= room for load in loads)
    for here, items in enumerate(bins):  # no earlier bin had room for it
        earlier = [sum(lengths[i] for i in bin_ if i < items[0]) for bin_ in bins[:here]]
        assert all(load + lengths[items[0]] > room for load in earlier)


def test_phrase_scores_against_loops() -> None:
    packer = Packer(TOKENIZER, 64)
    prompts = [packed.prompts[0] for packed in packer(PHRASES)]
    batch = packer.collate(prompts)
    logits = torch.randn(len(prompts), 7, 64)
    logits[..., batch.input_ids.shape[1] :] = -torch.inf
    scores = phrase_scores(logits, batch.phrase_tokens)
    for b, prompt in enumerate(prompts):
        for k, (start, end) in enumerate(prompt.spans):
            for q in range(7):
                expected = np.mean([1 / (1 + np.exp(-x)) for x in logits[b, q, start:end].tolist()])
                assert scores[b, k, q].item() == pytest.approx(expected, abs=1e-6)
        assert not scores[b, len(prompt.spans) :].any()


@pytest.mark.parametrize("seed", range(4))
def test_select_is_threshold_then_nms_then_top(seed: int) -> None:
    torch.manual_seed(seed)
    scores = torch.rand(3, 4, 50)
    boxes = torch.cat([torch.rand(3, 50, 2) * 0.4 + 0.3, torch.rand(3, 50, 2) * 0.5 + 0.05], 2)
    rows = select(scores, boxes, threshold=0.3, nms_iou=0.5, top=5)
    expected = []
    for b in range(3):
        corners = box_convert(boxes[b], "cxcywh", "xyxy").clamp(0, 1)
        for k in range(4):
            over = (scores[b, k] > 0.3).nonzero()[:, 0]
            kept = over[batched_nms(corners[over], scores[b, k, over], torch.zeros(len(over)), 0.5)][:5]
            expected += [[b, k, *corners[q].tolist(), scores[b, k, q].item()] for q in kept]
    torch.testing.assert_close(rows, torch.tensor(expected))


def test_select_without_anything() -> None:
    none = select(torch.zeros(2, 3, 4), torch.rand(2, 4, 4), threshold=0.1, nms_iou=0.5, top=5)
    assert none.shape == (0, 7)
    outside = torch.tensor([[[2.0, 2.0, 0.1, 0.1], [1.0, 1.0, 0.2, 0.2]]])
    rows = select(torch.ones(1, 1, 2), outside, threshold=0.1, nms_iou=0.5, top=5)
    torch.testing.assert_close(rows[:, 2:6], torch.tensor([[0.9, 0.9, 1.0, 1.0]]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_images_are_prepared_as_transformers_does(height: int, width: int) -> None:
    rule = ImageRule(64, 107)
    image = photo(height, width, 0)
    size = rule.size(height, width)
    canvas = rule.canvas(*size, queries=20)
    assert (canvas[0] // 8) * (canvas[1] // 8) >= 20
    pixels, mask = stack([image], [size], canvas)
    ours = rule.normalize(pixels, mask)[0, :, : size[0], : size[1]]
    assert not rule.normalize(pixels, mask)[0][:, ~mask[0]].any()
    if round(107 * min(height, width) / max(height, width)) == 0:
        return  # transformers asks for a side of 0 here
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 107})
    theirs = processor(images=torch.from_numpy(image.copy()).permute(2, 0, 1), return_tensors="pt")[
        "pixel_values"
    ][0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def assert_same(one, other, at_least: float = 1.0) -> None:
    """Equal to 1e-3; `at_least` of the rows, where near-ties may choose other queries."""
    for a, b in zip(one, other, strict=True):
        left, right = (np.column_stack([d.phrase, d.boxes, d.scores]) for d in (a, b))
        near = (np.abs(left[:, None] - right[None]) < 1e-3).all(2)
        assert near.any(1).mean() >= at_least
        assert near.any(0).mean() >= at_least


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["original", "grounding-dino", "mm-grounding-dino"])
def test_batch_equals_single(specs: dict[str, str], kind: str) -> None:
    detector = load(specs[kind])
    images = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    together = detector.detect(images, PHRASES)
    alone = [detector.detect([image], [phrases])[0] for image, phrases in zip(images, PHRASES, strict=True)]
    assert_same(together, alone)
    for found, phrases in zip(together, PHRASES, strict=True):
        assert set(found.phrase) == set(range(len(phrases)))
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= 1
        for k in range(len(phrases)):
            assert (np.diff(found.scores[found.phrase == k]) <= 0).all()
    assert together[0].scores.std() > 0.01  # the weights do say something


@pytest.mark.slow
def test_backends_agree_on_converted_weights(specs: dict[str, str], tmp_path: Path) -> None:
    pth, config = specs["original"].removeprefix("groundingdino:").split("@")
    convert_checkpoint(pth, tmp_path / "converted", config=config)
    images = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    original = load(specs["original"]).detect(images, PHRASES)
    converted = load(f"transformers:{tmp_path / 'converted'}").detect(images, PHRASES)
    assert_same(original, converted, at_least=0.95)


def test_many_phrases_take_several_prompts_of_one_image(specs: dict[str, str]) -> None:
    detector = load(specs["mm-grounding-dino"], max_boxes_per_phrase=2)
    nouns = [line for line in VOCAB.read_text().splitlines()[3000:3200] if line.isalpha()]
    found = detector.detect([photo(96, 96, 0)], [[*nouns, nouns[0]]])[0]
    assert detector.passes == 2
    assert set(found.phrase) == set(range(len(nouns) + 1))
    assert (np.diff(found.phrase) >= 0).all()
    first, again = found.phrase == 0, found.phrase == len(nouns)
    np.testing.assert_array_equal(found.boxes[first], found.boxes[again])


def test_tiny_images_and_images_without_phrases(specs: dict[str, str]) -> None:
    detector = load(specs["mm-grounding-dino"])
    images = [Image.new("L", (1, 1)), photo(3, 300, 1), photo(20, 20, 2), photo(96, 96, 3)]
    found = detector.detect(images, [["dog"], ["dog", ""], ["..."], []])
    assert [len(d.phrase) > 0 for d in found] == [True, True, False, False]
    assert found[3].boxes.shape == (0, 4)
    assert detector.detect([], []) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["original", "grounding-dino", "mm-grounding-dino"])
def test_bf16_is_close(specs: dict[str, str], kind: str) -> None:
    images = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    exact = load(specs[kind]).detect(images, PHRASES)
    half = load(specs[kind], dtype="bf16").detect(images, PHRASES)
    for a, b in zip(exact, half, strict=True):
        assert abs(a.scores.mean() - b.scores.mean()) < 0.1
        assert abs(a.boxes.mean() - b.boxes.mean()) < 0.1


def test_unusable_device(specs: dict[str, str]) -> None:
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(UserError, match=r"choose (auto, )?cpu"):
            load_detector(specs["grounding-dino"], device=device)


def test_fingerprint_follows_the_content(specs: dict[str, str]) -> None:
    folder = Path(specs["mm-grounding-dino"].partition(":")[2])
    before = detector_fingerprint(specs["mm-grounding-dino"])
    assert before == load(specs["mm-grounding-dino"]).fingerprint
    moved = folder.rename(folder.with_name("moved"))
    assert detector_fingerprint(f"transformers:{moved}") == before
    moved.rename(folder)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text + " ")
    assert detector_fingerprint(specs["mm-grounding-dino"]) != before
    config.write_text(text)


def test_missing_models_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACCO_MODELS", str(tmp_path))
    (tmp_path / "x.pth").write_bytes(b"not weights")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/config.json").write_text('{"model_type": "clip"}')
    for spec, told in {
        "groundingdino:swint": r"curl .*groundingdino_swint_ogc\.pth https://",
        "groundingdino:swinb": r"groundingdino_swinb_cogcoor\.pth",
        f"groundingdino:{tmp_path}/no.pth": "do not exist",
        f"groundingdino:{tmp_path}/x.pth": "hf download google-bert/bert-base-uncased",
        "transformers:nobody/nothing": "hf download nobody/nothing",
        "transformers:./nothing": "folder of a checkpoint",
        f"transformers:{tmp_path}/clip": "holds a clip model",
        "yolo": "choose tiny",
        "transformers:": "choose tiny",
    }.items():
        with pytest.raises(UserError, match=told):
            check_detector(spec)


@pytest.mark.slow
def test_unfit_weights_are_refused(specs: dict[str, str], tmp_path: Path) -> None:
    pth = specs["original"].removeprefix("groundingdino:").split("@")[0]
    with pytest.raises(UserError, match="of another size"):
        load_detector(f"groundingdino:{pth}", device="cpu")  # the official configuration has more layers
    bad = Path(pth).with_name("bad.pth")
    bad.write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a PyTorch weights file"):
        load_detector(f"groundingdino:{bad}", device="cpu")
    torch.save({"model": {"some.weight": torch.zeros(1)}}, bad)
    with pytest.raises(UserError, match="not of GroundingDINO"):
        convert_checkpoint(bad, tmp_path / "out")
