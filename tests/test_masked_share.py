"""The share that `macco-prep report` says training masks is what the loader masks."""

import re
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import open_clip
import pytest

from macco.pipeline import rectangle
from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize
from macco.preprocess.look.report import report
from macco.train.config import DataConfig, MaskConfig
from macco.train.data import recipe
from macco.train.data.loader import open_loader
from macco.train.data.masks import Crop
from macco.train.objectives.macco.batches import MaskedPairs

EPOCHS, PATCH = 30, 8
Draws = dict[
    str, list[tuple[float, float]]
]  # of each caption: shares of its words and of the patches, draw by draw


def drawn(store: Store, grid: int, epochs: int) -> Draws:
    """What batches of a training run mask."""
    tokenize = Tokenize(open_clip.get_tokenizer("ViT-B-32"))
    made = MaskedPairs(tokenize=tokenize, image_size=grid * PATCH, patch_size=PATCH)
    loader = open_loader(DataConfig(store=store.url, batch_size=24, workers=0), made, log=lambda line: None)
    captions = {
        row["sample_id"]: row["caption"]
        for shard in store.committed()
        for row in store.table("samples", shard).to_pylist()
    }
    found: Draws = defaultdict(list)
    for _ in range(epochs):
        for batch in loader:
            for name, text, patches in zip(
                batch.ids, batch.text_mask.numpy(), batch.patch_mask.numpy(), strict=True
            ):
                tokens = tokenize(captions[name])
                hidden = [(s, e) for s, e, m in zip(tokens.starts, tokens.ends, text, strict=False) if m]
                words = [match.span() for match in re.finditer(r"\S+", captions[name])]
                masked = sum(any(s < last and first < e for s, e in hidden) for first, last in words)
                found[name].append((masked / len(words), patches.mean()))
    loader.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("grid", [7, 14])
def test_the_expected_share_is_what_the_loader_masks(
    store: Store, grid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whole images, within the error of the draws; with crops, nine tenths of an image or more, nearly so."""
    masking = report(store, threshold=MaskConfig().box_score)["masking"]
    (expected,) = [row["share"] for row in masking["masked"]["patches"] if row["patches_a_side"] == grid]
    whole: Callable[..., Crop] = lambda width, height, random: Crop(0, 0, height, width, width, height)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "draw_crop", whole)
        draws = [np.array(one) for one in drawn(store, grid, EPOCHS).values()]
    assert len(draws) == masking["captions"] == 120
    words, patches = np.mean([one.mean(0) for one in draws], 0)
    assert words == pytest.approx(masking["masked"]["words"], abs=1e-6)  # which are not drawn
    error = np.sqrt(sum(one[:, 1].var(ddof=1) / len(one) for one in draws)) / len(draws)
    assert abs(patches - expected) < 4 * error < 0.02
    _, cropped = np.mean([np.mean(one, 0) for one in drawn(store, grid, 5).values()], 0)
    print(
        f"{grid} x {grid}: expected {expected:.4f}, whole images {patches:.4f} +- {error:.4f}, crops {cropped:.4f}"
    )
    assert cropped == pytest.approx(expected, rel=0.15)


def test_the_rule_is_the_one_that_a_run_has_by_default() -> None:
    masks = MaskConfig()
    assert (masks.rectangle, masks.image_ratio) == (rectangle.CHANCE, rectangle.SHARE)
    assert (masks.relations, masks.attributes, masks.objects, masks.denied) == ("all", True, False, False)
    assert (masks.same, masks.random, masks.random_boxes) == (False, False, 0)
