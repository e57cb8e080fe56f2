"""Shared fixtures: a small demo corpus, and the store extracted from it."""

import os
import sys
from pathlib import Path

# Two cores for everything: several threads in each of several processes only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # or the other tests leave hardly a second to Ray's workers


import pytest

from macco.pipeline.store import Store

pytest_plugins = [
    "tests.support.browser",
    "tests.support.evaluated",
    "tests.support.once",
]  # fixtures of some rooms


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that take long come first, so that at the end no process waits for another's."""
    long = {
        item.path for item in items if {"processes", "slow"} & {mark.name for mark in item.iter_markers()}
    }
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 demo images in 6 shards, with truth."""
    from macco.preprocess.demo import write_corpus

    folder = tmp_path_factory.mktemp("corpus") / "demo"
    write_corpus(folder, images=24, seed=1001, shard_size=4, split="train")
    return folder


@pytest.fixture(scope="session")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The corpus, extracted in this process. Tests only read it."""
    from macco.preprocess.config import ExtractConfig
    from macco.preprocess.extraction.run import Job, RunConfig, extract_shards
    from macco.preprocess.sources import plan

    config = ExtractConfig(device="cpu")
    made = Store.create(str(tmp_path_factory.mktemp("store") / "store"), config.settings())
    jobs = [Job(shard) for shard in plan([f"{corpus}/*.tar"])]
    summary = extract_shards(made, jobs, config, RunConfig(workers=0))
    assert not summary.failed
    return made


@pytest.fixture(scope="session")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Detectors of the real architectures with random weights and few layers, as --detector takes them."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    import random_detectors

    out = tmp_path_factory.mktemp("detectors")
    bert = out / random_detectors.BERT
    random_detectors.write_bert(bert, Path(__file__).parent / "data/bert/vocab.txt", small=True)
    specs = {"original": random_detectors.write_original(out, small=True)}
    for kind in ("grounding-dino", "mm-grounding-dino"):
        specs[kind] = random_detectors.write_transformers(out / kind, bert, kind, small=True)
    return specs


@pytest.fixture(scope="session")
def phrasewise(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Likewise those that ask for each phrase by itself, by model_type."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    import random_detectors

    out = tmp_path_factory.mktemp("phrasewise")
    return {kind: write(out / kind, small=True) for kind, write in random_detectors.PHRASEWISE.items()}
