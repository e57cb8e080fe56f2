"""A joint encoder as benchmarks see it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from macco.pipeline.errors import UserError
from macco.train.clip.towers import image_tower
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.scorer import CORRUPT, MISSING, OK, Scorer, score_items
from macco.train.objectives.joint.encoder import JointEncoder
from macco.train.objectives.joint.scorer import JointScorer
from tests.support.tiny import SIZE, tiny_clip

CAPTIONS = ["red dog", "a dog on a sofa", "cat"]


def preprocess(image: Image.Image) -> Tensor:
    pixels: Tensor = pil_to_tensor(image.resize((SIZE, SIZE))).float() / 255
    return pixels


def tokenize(captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each word, by its letters, between 1 and 2; 0 beyond."""
    lines = [[1, *(3 + sum(map(ord, word)) % 27 for word in c.split()), 2] for c in captions]
    tokens = torch.tensor([line + [0] * (max(map(len, lines)) - len(line)) for line in lines])
    return tokens, tokens > 0, tokens > 2


class Ground:
    """One box for a picture whose name begins with "a", three for others; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, picture: Picture, image: Image.Image) -> Tensor:
        self.asked += 1
        count = 1 if Path(picture.source).name.startswith("a") else 3
        return torch.tensor([[0.0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.2, 0.3, 0.9, 0.8]])[:count]


def scorer(batch_size: int = 4) -> tuple[JointScorer, Ground]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = JointEncoder.random(16, 30, **sizes, initializer_range=0.3)
    ground = Ground()
    tower = image_tower(tiny_clip().visual)
    return JointScorer(model, tower, preprocess, tokenize, ground, batch_size=batch_size), ground


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    random = np.random.default_rng(0)
    found = []
    for name in ("a", "b", "c"):
        pixels = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        found.append(Picture(str(tmp_path / f"{name}.png")))
    return found


def test_batches_and_company_change_no_score(pictures: list[Picture]) -> None:
    whole, _ = scorer(batch_size=16)
    left, right = [p for p in pictures for _ in CAPTIONS], CAPTIONS * 3
    scores = whole.pairs(left, right)
    assert len(np.unique(scores)) == 9
    alone, _ = scorer(batch_size=1)
    np.testing.assert_allclose(alone.pairs(left, right), scores, rtol=1e-4, atol=1e-5)


def test_what_is_known_is_not_made_again(pictures: list[Picture]) -> None:
    found, ground = scorer()
    first = found.pairs(pictures * 2, ["cat"] * 6)
    np.testing.assert_array_equal(found.pairs(pictures, ["cat"] * 3), first[:3])
    assert ground.asked == 3


def test_a_crop_is_another_picture(pictures: list[Picture]) -> None:
    found, _ = scorer()
    crop = Picture(pictures[1].source, crop=(5, 5, 20, 20))
    whole, part = found.pairs([pictures[1], crop], ["cat"] * 2)
    assert whole != part


def test_unreadable_pictures_have_a_status(pictures: list[Picture], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    bad = [Picture(str(tmp_path / "none.png")), Picture(str(tmp_path / "broken.png"))]
    found: Scorer = scorer()[0]
    scores = found.pairs([bad[0], pictures[0], bad[1]], ["cat"] * 3)
    assert np.isnan(scores).tolist() == [True, False, True]
    assert [found.status(p) for p in (*bad, pictures[0])] == [MISSING, CORRUPT, OK]


def test_items_are_scored(pictures: list[Picture]) -> None:
    items = [Item("", str(i), (pictures[i], pictures[2]), ("red dog", "cat")) for i in range(2)]
    scores, between, ok, _ = score_items(scorer()[0], items, texts=False)
    assert scores.shape == (2, 2, 2)
    assert between is None
    assert ok.all()
    np.testing.assert_array_equal(scores[0, 1], scores[1, 1])


def test_scores_that_are_not_finite_are_refused(pictures: list[Picture]) -> None:
    found, _ = scorer()
    torch.nn.init.constant_(found.model.head.bias, torch.nan)
    with pytest.raises(UserError, match="not finite"):
        found.pairs(pictures[:1], ["cat"])
