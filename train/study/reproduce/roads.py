"""The three roads to the authors' tables. A step that is done is passed over, so that the same command goes on."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file, replacing
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.train.clip.convert import open_checkpoint
from macco.train.clip.write import write_clip
from macco.train.config import TrainConfig
from macco.train.evaluation.benchmarks.order import freeze
from macco.train.evaluation.manifest import Places, load_benchmark_manifest
from macco.train.layers import preset, require_same, resolve
from macco.train.loop.run import train
from macco.train.objectives.objective import Log, Scoring
from macco.train.results.product import export_run
from macco.train.runs.weights import saved_config
from macco.train.study.reproduce import inventory
from macco.train.study.reproduce.inventory import ORDERS, Corpus, Need
from macco.train.study.reproduce.published import backbone, tables
from macco.train.study.reproduce.scoring import evaluate
from macco.train.study.reproduce.table import summary, write_table

ROADS: Final = ("checkpoint", "tsv", "extract")
COMPARISON: Final = "compare.json"

Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for."""

    road: str
    data: Path
    out: Path
    given: tuple[Path, ...] = ()  # checkpoints; none: those in data
    corpus: str = "coco"
    preset: str = "released-vitb32"
    seeds: tuple[int, ...] = (0,)
    overrides: dict[str, Any] = field(default_factory=dict)
    detector: str = "groundingdino:swinb"
    parser: str = "en_core_web_trf"
    extract: tuple[str, ...] = ()  # further options of macco-prep extract
    tagger: str = "en_core_web_sm"
    incomplete: bool = False  # go on without the images that are not there
    scoring: Scoring = field(default_factory=Scoring)


class Road:
    """One road, from what is there to the table."""

    def __init__(self, order: Order, stop: Stop, say: Log) -> None:
        if order.road not in ROADS:
            raise UserError(f"there is no road {order.road!r}: choose {', '.join(ROADS)}")
        if not order.data.is_dir():
            raise UserError(f"no folder {order.data}: --data is where the data lies, or is to be fetched to")
        self.order, self.stop, self.say = order, stop, say
        self.store = order.out / "store"
        self.trains = order.road != "checkpoint"
        frozen = {
            name: order.out / "orders" / name for name in ORDERS if (order.out / "orders" / name).is_dir()
        }
        self.places = Places(order.data, frozen)
        self.corpus = inventory.corpus(order.corpus, order.data) if self.trains else None
        self.checkpoints = {} if self.trains else inventory.checkpoint_files(order.data, order.given)
        self.configs = (
            {f"{order.preset}-seed{seed}": self._config(seed) for seed in order.seeds} if self.trains else {}
        )
        self.failed: list[str] = []
        self.notes: list[str] = []

    def needs(self) -> list[Need]:
        """All that the road reads."""
        if not self.trains:
            found = inventory.checkpoint_needs(self.checkpoints)
        else:
            assert self.corpus is not None
            found = inventory.corpus_needs(self.corpus)
            found += inventory.start_needs(next(iter(self.configs.values())).model)
            if self.order.road == "extract":
                found += inventory.detector_needs(self.order.detector, self.order.parser)
        return found + inventory.benchmark_needs(self.places, self.order.tagger)

    def plan(self) -> list[str]:
        """What will be done, with hours and disk, for a dry run."""
        work = tables().work
        names = list(self.configs) or list(self.checkpoints)
        cost = work.models.get(next(iter(self.configs.values())).model.name) if self.trains else None
        steps: list[tuple[str, float | None]] = []
        if self.order.road == "tsv":
            steps.append(("macco-prep import", work.importing))
        if self.order.road == "extract":
            steps.append((f"macco-prep extract with {self.order.detector}", work.extract))
        steps += [(f"train {name}", None if cost is None else cost.hours) for name in self.configs]
        steps += [(f"evaluate {name}, both activations", work.evaluate) for name in names]
        lines = [f"{'?' if hours is None else f'{hours:.1f}':>5} h  {what}" for what, hours in steps]
        known = sum(hours for _, hours in steps if hours is not None)
        gb = len(names) * (0.6 if cost is None else cost.gb) + 0.5
        return [*lines, f"{known:5.1f} h  in all, on one A100", inventory.disk_line(self.order.out, gb)]

    def run(self) -> bool:
        """Walk the road; returns whether it came to its end. `failed` are benchmarks that could not be run.

        Raises UserError where a step cannot be done; all that was done before it is kept.
        """
        needs = self.needs()
        for need in needs:
            self.say(need.line())
        if lost := [need for need in needs if need.needed and not need.there]:
            raise UserError(f"{lost[0].what} is not there: {lost[0].get}")
        self.notes += inventory.remember(self.order.out, needs)
        self._orders()
        steps = self._trained if self.trains else self._imported
        models = steps()
        if models is None:
            return False
        scored: dict[str, Path] = {}
        for name, model in models.items():
            scored[name] = self.order.out / "eval" / name
            found = evaluate(model, scored[name], self.places, self.order.scoring, self.stop, self.say)
            if not found.complete:
                return False
            self.failed += [line for line in found.failed if line not in self.failed]
            self.notes += [line for line in (*found.missing, *found.failed) if line not in self.notes]
            self._table(scored, models)
        return True

    def _table(self, scored: dict[str, Path], models: dict[str, Path]) -> None:
        backbones = {name.rpartition("-seed")[0] or name: backbone(models[name]) for name in scored}
        write_table(self.order.out, summary(scored, backbones), self.notes)

    def _orders(self) -> None:
        """Draw the shuffles of ARO's order tests, once, where their captions and a tagger are there."""
        for name, split in ORDERS.items():
            manifest = load_benchmark_manifest(name)
            subset, file = next(iter(manifest.files.items()))
            captions = self.places.find(load_benchmark_manifest(split), "text")
            if self.places.find(manifest, subset).is_file() or not captions.is_file():
                continue
            target = self.order.out / "orders" / name / file.path
            try:
                with replacing(target) as temporary:
                    freeze(captions, temporary, tagger=self.order.tagger)
            except UserError as error:
                self.notes.append(f"{name}: {error}")
                continue
            self.places = Places(self.order.data, self.places.overrides | {name: target.parent})

    def _imported(self) -> dict[str, Path] | None:
        models = {}
        for name, file in self.checkpoints.items():
            models[name] = model = self.order.out / "models" / name
            source = model.with_name(f"{name}.txt")
            told = f"{file.name} {file.stat().st_size}\n"
            if model.is_dir():
                if not source.is_file() or source.read_text("utf-8") != told:
                    raise UserError(f"{model} is of another {file.name}: choose another --out, or delete it")
                continue
            clip, config = open_checkpoint(file, quick_gelu=True)
            put_file(source, told.encode())
            with replacing(model) as temporary:
                write_clip(clip, temporary, "open_clip", config)
            self.say(f"imported {file}: {model}")
        return models

    def _trained(self) -> dict[str, Path] | None:
        assert isinstance(self.corpus, Corpus)
        if not self._annotate(self.corpus):
            return None
        models = {}
        for name, config in self.configs.items():
            run, models[name] = self.order.out / "runs" / name, self.order.out / "models" / name
            if models[name].is_dir():
                require_same(saved_config(run), config, run)
                continue
            self.say(f"training {name}")
            if not train(config, run, self.stop, self.say):
                return None
            with replacing(models[name]) as temporary:
                export_run(run, temporary)
        return models

    def _annotate(self, corpus: Corpus) -> bool:
        """The store: of the authors' annotations, or of one's own on the same captions."""
        if corpus.absent and not self.order.incomplete:
            raise UserError(
                f"the images of {corpus.absent:,} of {corpus.rows:,} rows are not under {corpus.root}: "
                f"{' '.join(corpus.get.split())}; or go on without them: --incomplete"
            )
        own = self.order.road == "extract"
        where = ["--image-root", str(corpus.root), "--out", str(self.store)]
        if own:
            read = ["--shards", str(corpus.tsv), "--format", "csv", "--caption-field", "title"]
            read += [
                "--image-field",
                "filepath",
                "--key-field",
                "filepath",
                "--dataset",
                f"macco_{self.order.corpus}",
            ]
            made = ["--detector", self.order.detector, "--parser", self.order.parser, *self.order.extract]
            command = ["extract", *read, *where, *made]
        else:
            command = ["import", str(corpus.tsv), *where]
        if not self._prep(*command):
            return False
        store = Store.open(str(self.store))
        counts = (
            connect(store, views=("samples",))
            .execute("SELECT status, count(*) FROM samples GROUP BY 1 ORDER BY 1")
            .fetchall()
        )
        self.notes.append(
            "rows of the store: " + ", ".join(f"{count:,} {status}" for status, count in counts)
        )
        if own:
            return self._prep(
                "compare", str(self.store), str(corpus.tsv), "--json", into=self.order.out / COMPARISON
            )
        return True

    def _prep(self, *arguments: str, into: Path | None = None) -> bool:
        """Run a command of macco-prep; False where it was stopped. Raises UserError where it failed."""
        self.say(f"macco-prep {shlex.join(arguments)}")
        command = [sys.executable, "-m", "macco.preprocess", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE if into else None)
        while True:
            try:
                written, _ = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if self.stop():
                    process.terminate()
        if self.stop():
            return False
        if process.returncode:
            raise UserError(
                f"macco-prep {arguments[0]} ended with exit code {process.returncode}: what it wrote above says why; "
                "the same command goes on"
            )
        if into is not None:
            put_file(into, written)
        return True

    def _config(self, seed: int) -> TrainConfig:
        layer = {"data": {"store": str(self.store)}, "seed": seed}
        return resolve(preset(self.order.preset), self.order.overrides, layer)
