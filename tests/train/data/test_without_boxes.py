"""A store that was made without a detector is good for everything that needs no box."""

from itertools import islice
from pathlib import Path

import open_clip
import pytest
from typer.testing import CliRunner

from macco.pipeline.store import Store
from macco.preprocess.cli import app
from macco.train.data.negatives import write_negatives
from macco.train.loop.run import warnings
from macco.train.objectives.macco.batches import open_training_data


def give(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def bare(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("bare") / "store"
    said = give("extract", "--shards", f"{corpus}/*.tar", "--out", out, "--workers", 0, "--detector", "none")
    assert "warning" not in said
    return Store.open(str(out))


def test_it_is_looked_at_and_exported(bare: Store, tmp_path: Path) -> None:
    give("stats", bare.url)
    give("view", bare.url, "--out", tmp_path / "view.html")
    give("export", bare.url, "--out", tmp_path / "boxes.json")
    give("export", bare.url, "--out", tmp_path / "train.tsv", "--format", "macco-tsv")
    assert write_negatives(bare, 0, lambda line: None) > 0


def test_training_says_so_once_and_masks_words(bare: Store) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    options = {"image_size": 32, "patch_size": 16, "batch_size": 8, "workers": 0, "log": lambda line: None}
    loader = open_training_data(bare.url, tokenizer, **options)
    (line,) = warnings(loader.plan, bare, "no patch will be masked")
    assert "without a detector" in line
    batches = list(islice(loader, 3))
    assert any(batch.text_mask.any() for batch in batches)
