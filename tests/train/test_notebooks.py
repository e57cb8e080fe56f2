"""The interface for notebooks: what is no value of a setting is said, and a path may be a Path."""

from pathlib import Path
from typing import Any

import open_clip
import pytest

import macco
from tests.support import ROOT

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
START = ROOT / "tests" / "fixtures" / "v0.1" / "start"
DATA = {"image_size": 32, "patch_size": 8, "batch_size": 4, "workers": 0, "log": lambda line: None}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"captions": "two"}, "data.captions is 'two'"),
        ({"crop": "gpu"}, "data.crop is 'gpu'"),
        ({"keep": "boxes"}, "data.keep is 'boxes'"),
        ({"workers": -1}, "data.workers is -1"),
        ({"prefetch": 0}, "data.prefetch is 0"),
        ({"batch_size": 2.5}, "data.batch_size is 2.5"),
        ({"max_broken": -1}, "data.max_broken is -1"),
        ({"where": None}, "data.where is None"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"image_size": 0}, "patches of 8 pixels"),
        ({"patch_size": 0}, "patches of 0 pixels"),
        ({"masks": macco.MaskConfig(attributes=None)}, "masks.attributes is None"),
        ({"masks": macco.MaskConfig(same="perhaps")}, "masks.same is 'perhaps'"),
        ({"tokenizer": lambda texts: texts}, "tokenizer function is not supported"),
    ],
)
def test_what_is_no_value_of_a_setting_is_said(changes: dict[str, Any], told: str, store: Any) -> None:
    options: dict[str, Any] = {"tokenizer": TOKENIZER} | DATA | changes
    with pytest.raises(macco.UserError, match=told):
        macco.open_training_data(store.url, **options)


def test_text_that_python_takes_for_true_is_read_as_yaml_would(store: Any) -> None:
    said: Any = {"attributes": "no", "text_ratio": "0.5"}
    loader = macco.open_training_data(store.url, TOKENIZER, masks=macco.MaskConfig(**said), **DATA)
    masks = loader.plan.recipe.masks
    assert (masks.attributes, masks.text_ratio) == (False, 0.5)


def test_a_caption_in_place_of_captions_is_said() -> None:
    with pytest.raises(macco.UserError, match="a list of captions"):
        macco.parse("A red dog.")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_text_or_a_path(kind: Any, store: Any, tmp_path: Path) -> None:
    opened = macco.open_store(kind(store.url))
    assert opened.url == store.url
    assert len(macco.open_training_data(kind(store.url), TOKENIZER, **DATA))
    model, _, _ = macco.load_clip(kind(START))
    macco.export_open_clip(model, kind(tmp_path / "plain"), macco.architecture(kind(START)))
    macco.export_hugging_face(model, kind(tmp_path / "hf"))
    assert (tmp_path / "plain" / "open_clip_config.json").is_file()
    assert (tmp_path / "hf" / "config.json").is_file()
