"""The loader's batches are those of the plain way: masks bit for bit, pixels but for their rounding."""

import io
import string
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from macco.pipeline.cache import as_cached
from macco.pipeline.clean import clean
from macco.pipeline.store import Store
from macco.preprocess.exchange.cache import write_cache
from macco.train.config import MaskConfig
from macco.train.data.crops import resize
from macco.train.data.loader import Loader
from macco.train.data.uncut import Uncut
from macco.train.objectives.macco.batches import MaskedBatch, open_training_data
from tests.support import DATA
from tests.support.drawn import CAPTION, record, rows, tar
from tests.support.plain_pairs import PlainPairs, cleaned

SIZES = [(640, 480), (333, 500), (90, 70), (257, 900), (224, 224), (1200, 800)]
PLAIN = string.ascii_letters + string.digits + string.punctuation.replace("&", "") + "   "


def photos() -> list[bytes]:
    """JPEGs of photographs, in several sizes."""
    found = []
    for path in sorted((DATA / "photos").glob("*.jpg"))[:2]:
        for size in SIZES:
            out = io.BytesIO()
            Image.open(path).convert("RGB").resize(size).save(out, "JPEG", quality=92)
            found.append(out.getvalue())
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    made = Store.create(str(folder / "store"), {"made": "for tests"})
    for number in range(2):
        source, name = folder / f"{number}.tar", f"{number:05}"
        places = tar(source, photos())
        caption = [CAPTION, CAPTION + " It is an unremarkable “photograph”."][number]
        made.commit(name, rows(name, source, places, caption), record(name, source))
    return made.url


def load(store: str, plain: bool = False, **changes: Any) -> list[MaskedBatch]:
    options: dict[str, Any] = {"image_size": 64, "patch_size": 16, "batch_size": 8, "workers": 0}
    options |= {"log": lambda line: None, **changes}
    loader: Loader[MaskedBatch] = open_training_data(store, open_clip.get_tokenizer("ViT-B-32"), **options)
    if plain:
        recipe = loader.plan.recipe
        slow = PlainPairs(**{field.name: getattr(recipe, field.name) for field in fields(recipe)})
        loader.plan = replace(loader.plan, recipe=slow)
    return list(loader)


def check(some: list[MaskedBatch], others: list[MaskedBatch]) -> None:
    assert len(some) == len(others) == 3
    for one, other in zip(some, others, strict=True):
        assert one.ids == other.ids
        for name in ("tokens", "text_mask", "patch_mask", "image_ids", "caption_ids"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        apart = (one.images.float() - other.images.float()).abs()
        assert apart.mean() < 0.25
        assert apart.max() <= 8  # Pillow resizes the rows of tall pictures first, and rounds in between


@pytest.mark.parametrize("masks", [{}, {"random": True}, {"same": True, "rectangle": 0.5}, {"objects": True}])
def test_batches_are_those_of_the_plain_way(store: str, masks: dict[str, Any]) -> None:
    config = MaskConfig(**masks)
    check(load(store, masks=config), load(store, plain=True, masks=config))


@pytest.mark.parametrize("pixels", [False, True])
def test_crops_of_the_device_are_those_of_the_cpu(store: str, tmp_path: Path, pixels: bool) -> None:
    cache = str(tmp_path / "cache")
    write_cache(store, cache, short_side=80, pixels=pixels, log=lambda line: None)
    uncut = load(store, crop="device", cache=cache)
    assert isinstance(uncut[0].images, Uncut)
    check([batch.to("cpu") for batch in uncut], load(store, plain=True, cache=cache))


def test_a_cache_of_pixels_holds_what_one_of_jpegs_shows(store: str, tmp_path: Path) -> None:
    for name, pixels in (("jpegs", False), ("pixels", True)):
        write_cache(store, str(tmp_path / name), short_side=80, pixels=pixels, log=lambda line: None)
    assert [path.suffix for path in (tmp_path / "pixels").glob("00000.*")].count(".pixels") == 1
    jpegs, pixels_ = (load(store, cache=str(tmp_path / name)) for name in ("jpegs", "pixels"))
    for one, other in zip(jpegs, pixels_, strict=True):
        assert torch.equal(one.patch_mask, other.patch_mask)
        assert (one.images.float() - other.images.float()).abs().mean() < 3


def test_micro_batches_of_the_device_are_the_batch(store: str) -> None:
    for batch in load(store, crop="device"):
        parts = [part.to("cpu").images for part in batch.split(3)]
        assert [len(part) for part in parts] == [3, 3, 2]
        assert torch.equal(torch.cat(parts), batch.to("cpu").images)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=6), st.integers(1, 40)
)
def test_any_sizes_are_resized_as_one_by_one(sizes: list[tuple[int, int]], side: int) -> None:
    random = np.random.default_rng(side)
    crops = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    together = Uncut.of(crops, side).to("cpu").float()
    alone = torch.stack([torch.from_numpy(resize(crop, side)).float() for crop in crops])
    assert (together - alone).abs().max() <= 2


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=PLAIN, max_size=40), st.sampled_from(["lower", "whitespace", "canonicalize"]))
def test_a_plain_caption_is_cleaned_as_any_other(text: str, kind: str) -> None:
    cleaner = open_clip.tokenizer.get_clean_fn(kind)
    assert clean(text, cleaner) == cleaned(text, cleaner)
    assert clean(text, cleaner).text == cleaner(text)


@given(st.binary(max_size=40) | st.builds(lambda body: b"P6\n2 1\n255\n" + body, st.binary(max_size=9)))
def test_only_a_whole_picture_is_a_cached_one(data: bytes) -> None:
    found = as_cached(data)
    assert (found is not None) == (data.startswith(b"P6\n2 1\n255\n") and len(data) == 17)
    if found is not None:
        assert found.shape == (1, 2, 3)
