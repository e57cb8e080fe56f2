"""Detectors that see every image on one square: real classes of transformers, random weights."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from macco.preprocess.detectors import check_detector, detector_fingerprint, load_detector
from macco.preprocess.detectors.detector import ASKED, CUT, WORDLESS

KINDS = ("owlv2", "omdet-turbo", "sam3", "florence2")
PHRASES = [
    ["red dog", "small sofa", "tree"],
    ["cat"],
    [],
    ["red dog", "bus", "cat", "wet street", "Red dog."],
]
SIZES = [(60, 90), (64, 64), (30, 40), (200, 50)]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@functools.cache
def load(spec: str, **settings: object):
    return load_detector(spec, device="cpu", box_threshold=0.0, nms_iou=0.95, **settings)


def photo(height: int, width: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [photo(*size, seed) for seed, size in enumerate(SIZES)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_single_images_give(phrasewise: dict[str, str], kind: str) -> None:
    detector = load(phrasewise[kind])
    together = detector.detect(IMAGES, PHRASES)
    assert sum(len(found.phrase) for found in together) > 10
    for image, phrases, found in zip(IMAGES, PHRASES, together, strict=True):
        (alone,) = detector.detect([image], [phrases])
        assert found.phrase.tolist() == alone.phrase.tolist()
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-3)
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
        assert (np.diff(found.phrase) >= 0).all()
    same = [found.boxes[found.phrase == k] for found, k in ((together[3], 0), (together[3], 4))]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_phrase_and_an_image_say_matters(phrasewise: dict[str, str], kind: str) -> None:
    detector = load(phrasewise[kind])
    one, other = detector.detect([IMAGES[0], IMAGES[1]], [["dog", "cat"], ["dog", "cat"]])
    best = [found.scores[found.phrase == k][:3] for found in (one, other) for k in (0, 1)]
    assert all(len(scores) for scores in best)
    assert len({tuple(scores.round(5)) for scores in best}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_asked_and_what_was_cut_is_counted(phrasewise: dict[str, str], kind: str) -> None:
    detector = load(phrasewise[kind], max_boxes_per_phrase=1)
    long = " ".join(["surfboard"] * 120)
    found = detector.detect(IMAGES[:2], [["dog", long, "?!", ". "], ["dog"]])
    assert detector.counts[ASKED] == 4
    assert detector.counts[CUT] == 1
    assert detector.counts[WORDLESS] == 1
    assert {0, 1} <= set(found[0].phrase.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_close(phrasewise: dict[str, str], kind: str) -> None:
    exact, half = (load(phrasewise[kind], dtype=dtype).detect(IMAGES, PHRASES) for dtype in ("fp32", "bf16"))
    for a, b in zip(exact, half, strict=True):
        if len(a.scores):
            assert abs(a.scores.mean() - b.scores.mean()) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_is_of_the_files(phrasewise: dict[str, str], kind: str) -> None:
    check_detector(phrasewise[kind])
    before = detector_fingerprint(phrasewise[kind])
    assert before == load(phrasewise[kind]).fingerprint
    config = Path(phrasewise[kind].partition(":")[2]) / "config.json"
    text = config.read_text()
    config.write_text(text + " ")
    assert detector_fingerprint(phrasewise[kind]) != before
    config.write_text(text)


def test_owlv2_answers_as_transformers_does(phrasewise: dict[str, str]) -> None:
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    folder = phrasewise["owlv2"].partition(":")[2]
    model, processor = (kind.from_pretrained(folder) for kind in (Owlv2ForObjectDetection, Owlv2Processor))
    inputs = processor(text=[["dog"]], images=Image.fromarray(IMAGES[0]), return_tensors="pt")
    with torch.no_grad():
        out = model(**inputs)
    theirs = processor.image_processor.post_process_object_detection(out, 0.0, [IMAGES[0].shape[:2]])[0]
    best = int(theirs["scores"].argmax())
    (mine,) = load(phrasewise["owlv2"]).detect(IMAGES[:1], [["dog"]])
    assert mine.scores[0] == pytest.approx(float(theirs["scores"][best]), abs=1e-4)
    height, width = IMAGES[0].shape[:2]
    corners = theirs["boxes"][best].numpy() / [width, height, width, height]
    np.testing.assert_allclose(mine.boxes[0], corners.clip(0, 1), atol=1e-4)
