"""method.reference on what the loader makes: the public code's numerics, not only on vectors."""

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from macco.train.clip.towers import Text
from macco.train.config import DataConfig
from macco.train.data.loader import open_loader
from macco.train.layers import parse, resolve
from macco.train.objectives.objective import load_objective
from tests.support.drawn import drawn_store
from tests.support.literal import losses

VISION = {"image_size": 32, "patch_size": 16, "width": 24, "head_width": 12, "layers": 2}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
SETTINGS = ["method.heads=2", "method.text_depth=1", "method.image_depth=1", "method.reference=true"]


@pytest.mark.parametrize("duplicates", [True, False])
def test_a_batch_of_the_loader_has_the_literal_losses(tmp_path: Path, duplicates: bool) -> None:
    """Every caption of the store is the same one: unless they are counted, no pair is a wrong answer to another."""
    torch.manual_seed(0)
    clip = open_clip.model.CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT)
    config = resolve(parse([*SETTINGS, f"method.duplicate_negatives={duplicates}"]))
    objective = load_objective(config)
    model = objective.model(clip).double()
    data = DataConfig(store=drawn_store(tmp_path, shards=1, images=6), batch_size=3, workers=0)
    recipe = objective.recipe(
        model, open_clip.get_tokenizer("ViT-B-32"), data, torch.device("cpu"), lambda line: None
    )
    batch = next(iter(open_loader(data, recipe, log=lambda line: None)))
    assert batch.tokens.shape[1] == Text(clip).context == 77
    batch = replace(batch, images=model.pixels(batch.images))
    found = model(batch)
    expected = losses(model.state_dict(), batch, heads=2, padding=True)
    names = ["mlm", "mim"] + (["contrast", "mir", "loss"] if duplicates else [])
    for name in names:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5), name
    found["loss"].backward()
    if not duplicates:
        assert found["mir"].item() == pytest.approx(0, abs=1e-6)
