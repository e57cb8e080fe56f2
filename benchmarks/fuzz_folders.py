"""Stores and run folders with damage, as every command that opens one meets them."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.damage import copied, damage
from macco.pipeline import console
from macco.preprocess import cli as macco_prep
from macco.train import cli as macco_train
from macco.train.config import TrainConfig
from macco.train.data.loader import open_loader
from macco.train.data.recipe import Recipe
from macco.train.layers import parse, preset, resolve
from macco.train.objectives.objective import Scoring, load_objective
from macco.train.results.scorers import open_scorer, run_scorer
from macco.train.results.serve import Runs

START = Path(__file__).parents[1] / "tests" / "fixtures" / "v0.1" / "start"
SMALL = ["steps=2", "data.batch_size=4", "device=cpu", f"model.name={START}", "model.pretrained="]
SMALL += ["method.text_depth=1", "method.image_depth=1", "log_every=1", "method.negatives=1"]


class SaidOtherwiseError(Exception):
    """A command that ended in another way than with success or one line."""


def ended(app: Any, *arguments: str, name: str = "macco-train") -> bool:
    """Tell whether a command succeeds; raise what it lets through, or SaidOtherwiseError."""
    out, wrong, finders, argv = io.StringIO(), io.StringIO(), [*sys.meta_path], sys.argv
    sys.argv, code = [name, *arguments], None
    try:
        with redirect_stdout(out), redirect_stderr(wrong):
            console.run(app, name)
    except SystemExit as end:
        code = end.code
    finally:
        sys.meta_path[:], sys.argv = finders, argv
    lines = [line for line in wrong.getvalue().splitlines() if line.startswith(f"{name}: ")]
    if code not in (0, 1, 2) or (code == 2) != (len(lines) == 1) or "Traceback" in wrong.getvalue():
        raise SaidOtherwiseError(f"exit {code}: {wrong.getvalue()[-300:]}")
    return code == 0


def done(action: Callable[[], object]) -> bool:
    """The same of what a command does at its heart."""

    def app(arguments: list[str], **_: Any) -> int:
        action()
        return 0

    return ended(app, "x")


@dataclass(frozen=True)
class Templates:
    """Folders that are whole."""

    loose: Path  # a store of three shards, with negatives
    packed: Path  # the same, compacted
    run: Path  # trained on it to its end


@cache
def templates(folder: Path) -> Templates:
    """Made once in a process."""
    from macco.preprocess.demo import write_corpus

    made = Templates(folder / "loose", folder / "packed", folder / "run")
    write_corpus(folder / "corpus", images=3, seed=5, shard_size=1)
    shards = f"{folder}/corpus/*.tar"
    given = ["--out", str(made.loose), "--workers", "0", "--device", "cpu"]
    prep = macco_prep.app, macco_train.app
    assert ended(prep[0], "extract", "--shards", shards, *given, name="macco-prep")
    assert ended(prep[1], "negatives", str(made.loose))
    copied(made.loose, made.packed)
    assert ended(prep[0], "compact", str(made.packed), name="macco-prep")
    assert ended(
        prep[1], "run", "--store", str(made.loose), "--preset", "tiny", "--out", str(made.run), *SMALL
    )
    return made


@cache
def _config() -> TrainConfig:
    found: TrainConfig = resolve(preset("tiny"), parse([*SMALL, "data.workers=0"]))
    return found


@cache
def _recipe() -> Recipe:
    from macco.train.clip.load import load_start

    objective, start = load_objective(_config()), load_start(_config().model, 0)
    model = objective.model(start.model)
    found: Recipe = objective.recipe(
        model, start.tokenizer, _config().data, torch.device("cpu"), lambda line: None
    )
    return found


def _open_training(store: Path) -> None:
    data = replace(_config().data, store=str(store))
    loader = open_loader(data, _recipe(), log=lambda line: None)
    try:
        next(iter(loader))
    finally:
        loader.close()


def _of_store(*arguments: str) -> Callable[[Path], bool]:
    return lambda store: ended(
        macco_prep.app, arguments[0], str(store), *(one.format(out=f"{store}.out") for one in arguments[1:]),
        name="macco-prep",
    )  # fmt: skip


JOINED = "SELECT * FROM concept_boxes JOIN samples USING (sample_id)"
STORE: dict[str, Callable[[Path], bool]] = {
    "status": _of_store("status"),
    "sql": _of_store("sql", JOINED, "--format", "json", "--out", "{out}"),
    "view": _of_store("view", "--out", "{out}"),
    "verify": _of_store("verify"),
    "stats": _of_store("stats"),
    "export": _of_store("export", "--format", "macco-tsv", "--out", "{out}"),
    "compact": _of_store("compact"),
    "train": lambda store: done(lambda: _open_training(store)),
}
RUN: dict[str, Callable[[Path], bool]] = {
    "eval of the run": lambda run: done(lambda: open_scorer(str(run), scoring=Scoring(device="cpu"))),
    "eval of its checkpoint": lambda run: done(lambda: run_scorer(run, Scoring(device="cpu"))),
    "eval of the model": lambda run: done(lambda: open_scorer(f"{run}/model", scoring=Scoring(device="cpu"))),
    "serve": lambda run: done(lambda: json.dumps(Runs([run]).overview())),
    "report": lambda run: ended(macco_train.app, "report", str(run)),
    "export": lambda run: ended(macco_train.app, "export", str(run), "--out", f"{run}.out"),
}


def stores(random: Random, folder: Path) -> bool:
    made = templates(folder)
    store = copied(random.choice((made.loose, made.packed)), folder / "store")
    damage(store, random)
    return STORE[random.choice([*STORE])](store)


def runs(random: Random, folder: Path) -> bool:
    run = copied(templates(folder).run, folder / "damaged")
    shutil.rmtree(f"{run}.out", ignore_errors=True)
    damage(run, random)
    return RUN[random.choice([*RUN])](run)
