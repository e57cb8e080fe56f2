"""Hashes are those of stores of any age: imagehash's definition by Pillow, however they are computed."""

import io
from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.Image import Resampling

from macco.pipeline.dhash import _small
from macco.pipeline.pictures import decode
from tests.support import DATA


def by_pillow(grey: Image.Image) -> list[list[int]]:
    small: list[list[int]] = np.asarray(grey.resize((9, 8), Resampling.LANCZOS)).tolist()
    return small


@settings(max_examples=120, deadline=None)
@example(640, 480, 1, 255, 0)
@example(2600, 64, 1, 255, 0)
@given(
    st.integers(1, 900), st.integers(1, 900), st.sampled_from([1, 7, 64]), st.sampled_from([2, 255]), st.integers(0, 99)
)  # fmt: skip
def test_any_picture_is_made_small_as_pillow_does(
    width: int, height: int, grain: int, levels: int, seed: int
) -> None:
    cells = np.random.default_rng(seed).integers(0, levels, (height // grain + 1, width // grain + 1))
    drawn = Image.fromarray((cells * (255 // (levels - 1 or 1))).clip(0, 255).astype(np.uint8))
    grey = drawn.resize((width, height), Resampling.NEAREST)
    assert _small(grey).tolist() == by_pillow(grey)


def test_photographs_have_the_hashes_that_pillow_gives_them() -> None:
    for path in sorted((DATA / "photos").glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        for size in (photo.size, (640, 480), (480, 640), (500, 333), (1333, 1000)):
            out = io.BytesIO()
            photo.resize(size).save(out, "JPEG", quality=90)
            grey = by_pillow(Image.open(out).convert("RGB").convert("L"))
            bits = "".join(str(int(b > a)) for row in grey for a, b in pairwise(row))
            assert decode(out.getvalue()).code == int(bits, 2)
