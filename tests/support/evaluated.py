"""What evaluation is tried on: small random models, drawn images, excerpts of the official files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from macco.train.clip.load import load_clip
from macco.train.clip.write import export_open_clip
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Picture
from macco.train.evaluation.manifest import Places
from tests.support import DATA

EXCERPTS = DATA / "benchmarks"


def small_clip(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1}
    text = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    return open_clip.model.CLIP(**{"embed_dim": 16, "vision_cfg": vision, "text_cfg": text} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model."""
    path = tmp_path_factory.mktemp("model") / "clip"
    export_open_clip(small_clip(), path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    return load_clip(str(folder))


@pytest.fixture
def encoder(loaded: Any) -> DualEncoder:
    return DualEncoder(*loaded, batch_size=8)


def draw(path: Path, number: int, size: tuple[int, int] = (24, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Places:
    """The excerpts, with an image drawn for every name in them."""
    for name in ("sugarcrepe", "sugarcrepe_pp", "valse", "cola", "whatsup"):
        (tmp_path / name).symlink_to(EXCERPTS / name)
    places = Places(tmp_path, {"cola_images": tmp_path / "c", "whatsup_images": tmp_path / "w"})
    pictures = {p for name in os.listdir(EXCERPTS) if name in BENCHMARKS for p in pictures_of(name, places)}
    for number, picture in enumerate(sorted(pictures, key=str)):
        draw(Path(picture.source), number)
    return places


def pictures_of(name: str, places: Places) -> list[Picture]:
    return [picture for item in BENCHMARKS[name](places).items() for picture in item.pictures]
