"""The training loop."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from macco.pipeline.coverage import few_boxes
from macco.pipeline.devices import choose_device
from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.query import connect
from macco.pipeline.schema import PARAPHRASES
from macco.pipeline.store import Store
from macco.pipeline.views import scan
from macco.train.clip.load import load_start
from macco.train.config import TrainConfig
from macco.train.data.batch import Batch
from macco.train.data.detector import detector_of
from macco.train.data.loader import Loader, LoaderPlan, open_loader
from macco.train.distributed import ranks
from macco.train.distributed.processes import joined
from macco.train.layers import dump, require_same, values
from macco.train.loop.benchmarks import PREFIX, Benchmarks
from macco.train.loop.state import State, build_model
from macco.train.loop.window import LossWindow
from macco.train.objectives.objective import Log, load_objective
from macco.train.runs import checkpoint
from macco.train.runs.metrics import Metrics, Row
from macco.train.runs.metrics import read as read_metrics
from macco.train.runs.weights import CONFIG, saved_config

VALIDATION = "validation/loss"  # what "best" goes by, where there are no benchmarks


def train(config: TrainConfig, run: Path, stop: Callable[[], bool], log: Log = print) -> bool:
    """Train until done, or until `stop` says so; a run folder that has a checkpoint goes on from it.

    Writes config.yaml, metrics.jsonl and checkpoints/ into `run`. Returns whether the run is complete.
    Under torchrun every rank calls this with the same arguments; rank 0 writes.

    Raises:
        UserError: `run` was begun with other settings, or a loss is not finite (see LossWindow).
    """
    device = choose_device(config.device)
    if not config.data.store:
        raise UserError("no store to train on: give --store STORE")
    opened = Store.open(config.data.store)
    begun = checkpoint.path(run, checkpoint.LATEST).is_file()
    if not begun:
        checkpoint.require_none(run)
    objective = load_objective(config)

    def whose(store: Store, where: str) -> str:
        chosen = detector_of(store, config, where, reads_boxes=bool(objective.without_boxes))
        return chosen or (store.detector if begun else "")  # none was named when others were not there yet

    opened.choose_boxes(whose(opened, config.data.where))  # before any weights are fetched
    with joined(device):
        lead = ranks.rank() == 0
        say = log if lead else lambda line: None
        if begun:
            _refuse_longer(saved_config(run), config, run)
            require_same(saved_config(run), config, run)
        start = load_start(config.model, config.seed)
        model = build_model(objective, start.model, device)

        def loader_of(store: str, where: str) -> Loader[Any]:
            exclude = config.data.exclude if store == config.data.store else ""
            detector = whose(Store.open(store), where)
            data = replace(config.data, store=store, where=where, exclude=exclude, detector=detector)
            recipe = objective.recipe(model, start.tokenizer, data, device, say)
            return open_loader(data, recipe, seed=config.seed, log=say)

        loader, judges, v = loader_of(config.data.store, config.data.where), None, config.validation
        if v.where or v.store:
            judges = loader_of(v.store or config.data.store, v.where)
        benchmarks = Benchmarks(config, say) if v.benchmarks else None
        if v.best and benchmarks is None:
            raise UserError(
                f"validation.best is {v.best!r}, but there are no validation.benchmarks: name one"
            )
        for line in warnings(loader.plan, opened, objective.without_boxes) if lead else ():
            print(line, file=sys.stderr)
        state = State(objective, model, config.steps or max(1, round(config.epochs * len(loader))))
        if begun:
            _go_on(state, loader, run)
            say(f"going on from step {state.step} of {state.total}")
        metrics = None
        if lead:
            put_file(run / CONFIG, dump(config).encode())
            metrics = Metrics(
                run, state.step, tensorboard=config.tensorboard, wandb=config.wandb, config=values(config)
            )
        try:
            if metrics is not None and not begun and config.data.exclude:
                metrics.write({"step": 0, "excluded_samples": float(loader.plan.index.excluded)})
            return Loop(state, loader, judges, benchmarks, run, metrics, say).run(stop)
        finally:
            loader.close()
            if metrics is not None:
                metrics.close()


def _refuse_longer(old: TrainConfig, new: TrainConfig, run: Path) -> None:
    """Raise UserError where a finished run is given another length: its rates were those of a run that ended."""
    lengths = [
        f"{name}={getattr(new, name)}"
        for name in ("steps", "epochs")
        if getattr(new, name) != getattr(old, name)
    ]
    if not lengths or not (run / "model").is_dir():
        return
    raise UserError(
        f"{run} is finished: its learning rate has fallen to 0 as planned. To train on from its model, with a warm-up "
        f"of its own: macco-train run --config {run / CONFIG} model.name={run} model.pretrained= "
        f"model.predictors={run} {' '.join(lengths)} --out {run}-2"
    )


def warnings(plan: LoaderPlan, store: Store, without_boxes: str) -> Iterator[str]:
    """What a user should know of the boxes and of the other captions that batches depend on.

    without_boxes: see `Objective`.
    """
    if without_boxes and (line := few_boxes(store, plan.recipe.masks.box_score, without=without_boxes)):
        yield line
    if plan.recipe.reads_siblings:
        with_others, there = _siblings(plan, store)
        if with_others < there / 2:
            yield (
                f"warning: {with_others:,} of {there:,} captions have another of their image, or a paraphrase; the "
                "rest is in no term that reads one: loosen --where, or see: macco-train import-texts"
            )
    if store.made_with.get("detector") == "none":
        return
    if without_boxes and not _any_box(plan, store):
        yield f"warning: no box is left to train on, and {without_boxes}: loosen --where or masks.box_score"


def _any_box(plan: LoaderPlan, store: Store) -> bool:
    """Whether the selection leaves a box: the first file that has one will do."""
    selection = plan.selection
    with connect(store, views=selection.views) as connection:
        commits = store.commits()
        for file in dict.fromkeys(commits.files.values()):
            part = commits.parts([file])
            samples = f"SELECT * FROM {scan(store.url, 'samples', part)} WHERE {selection.all('samples')}"
            boxes = selection.relation("boxes", samples, part, store, commits.files)
            if connection.execute(f"SELECT 1 {boxes} WHERE {selection.all('boxes')} LIMIT 1").fetchone():
                return True
    return False


def _siblings(plan: LoaderPlan, store: Store) -> tuple[int, int]:
    """Of the samples that --where leaves, those with a paraphrase or another one of their image; and all."""
    with connect(store, views=("samples", *plan.selection.views)) as connection:
        paraphrased = "false"
        if store.exists(PARAPHRASES):
            files = sorted(store.names(".parquet", PARAPHRASES))
            paraphrased = f"sample_id IN (SELECT sample_id FROM {scan(store.url, PARAPHRASES, files)})"
        found = connection.execute(
            f"SELECT count(*) FILTER (n > 1 OR paraphrased), count(*) FROM (SELECT {paraphrased} AS paraphrased, "
            "count(*) OVER (PARTITION BY dataset, shard, key) AS n "
            f"FROM samples WHERE {plan.selection.all('samples')})"
        ).fetchone()
        return found or (0, 0)


def _go_on(state: State, loader: Loader[Any], run: Path) -> None:
    """Take up what the latest checkpoint holds."""
    saved = checkpoint.load(run, checkpoint.LATEST)
    try:
        state.load_state_dict(saved)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{state.config.model.name} is no longer the model that {run} started from"
        ) from error
    loader.load_state_dict(saved["data"])


class Loop:
    """Steps, with what is written between them."""

    def __init__(
        self,
        state: State,
        loader: Loader[Any],
        judges: Loader[Any] | None,
        benchmarks: Benchmarks | None,
        run: Path,
        metrics: Metrics | None,
        log: Log,
    ) -> None:
        self.state, self.loader, self.judges, self.benchmarks = state, loader, judges, benchmarks
        self.folder, self.metrics, self.log = run, metrics, log
        self.window = LossWindow()
        self.told = False  # whether captions are cut
        self.seconds = 0.0  # of the steps since the last row: saving and validating are left out
        self.waited = 0.0  # of these, for batches

    def run(self, stop: Callable[[], bool]) -> bool:
        """Go to the end, or until any rank is asked to stop; returns whether it was the end."""
        t, c = self.state, self.state.config
        # Alone on the CPU a look costs nothing.
        look = 1 if t.device.type == "cpu" and ranks.world() == 1 else c.log_every
        batches, stopped, saved = self._batches(), False, t.step
        if self._asks(t.step) and not self._asked():  # the start, or where a stop came between
            self._ask_first()
        while t.step < t.total and not stopped:
            began = time.perf_counter()
            try:
                with torch.random.fork_rng([]):  # starting the loader's processes draws a number
                    batch = next(batches)
                self.waited += time.perf_counter() - began
            except RuntimeError:
                if not stop():
                    raise
                break  # Ctrl-C has ended the loader's processes too
            last = t.step + 1 == t.total
            row = last or (t.step + 1) % c.log_every == 0
            save = last or bool(c.save_every and (t.step + 1) % c.save_every == 0)
            asks = self._asks(t.step + 1)
            losses, norms = t.update(batch, norms=row)
            self.window.add(t.step, batch.ids, losses, stop())
            if row or save or t.step % look == 0:
                stopped = self.window.look(self.folder)
            self.seconds += time.perf_counter() - began
            if row or stopped:
                self._row({name: float(value) for name, value in norms.items()})
            if save or asks or stopped:
                self._save(checkpoint.LATEST)
                saved = t.step
            if save and self.judges is not None:
                self._judge(self.judges)
            if asks and not stopped:
                self._ask()
        if saved < t.step:
            self._save(checkpoint.LATEST)
        return t.step >= t.total

    def _batches(self) -> Iterator[Batch]:
        while True:
            yield from self.loader

    def _row(self, norms: Row) -> None:
        t = self.state
        losses, steps = self.window.mean()
        row = losses | norms | t.scalars()
        row |= {
            "rate": t.optimizer.param_groups[0]["lr"],
            "rate_new": t.optimizer.param_groups[-1]["lr"],
            "epoch": t.step / len(self.loader),
            "samples_per_second": steps * t.config.data.batch_size / self.seconds,
            "broken_images": float(self.loader.broken),
        }
        row["waiting"] = self.waited / self.seconds
        seconds, self.seconds, self.waited = self.seconds, 0.0, 0.0
        if cut := self.loader.said_of_cuts():
            row["captions_cut"] = self.loader.captions_cut / self.loader.captions
            row["concepts_cut"] = float(self.loader.concepts_cut)
            if not self.told or t.step == t.total:
                self.log(cut)
            self.told = True
        if self.metrics is not None:
            self.metrics.write({"step": t.step} | row)
        shown = "  ".join(f"{name} {value:.4f}{self._weight(name)}" for name, value in losses.items())
        left = timedelta(seconds=round((t.total - t.step) * seconds / steps))
        self.log(
            f"step {t.step}/{t.total}  {shown}  {row['samples_per_second']:.1f} samples/s  "
            f"{row['waiting']:.0%} waiting for data  {left} left"
        )

    def _weight(self, name: str) -> str:
        """What a loss is multiplied by in the sum, where the settings have a weight of its name."""
        shared = self.state.model.shared_weights
        weight = shared.get(name, getattr(self.state.config.settings, name, 1))
        return "" if weight == 1 else f" x{weight:g}"

    def _save(self, name: str) -> None:
        if ranks.rank() == 0:
            state = self.state.state_dict() | {"data": self.loader.state_dict()}
            checkpoint.save(self.folder, name, state)

    def _asks(self, step: int) -> bool:
        """Whether benchmarks are asked after so many steps."""
        every = self.state.config.validation.every or self.state.config.save_every
        return self.benchmarks is not None and (
            step in (0, self.state.total) or bool(every and step % every == 0)
        )

    def _asked(self) -> bool:
        """Whether they have been, of the state as it is: as rank 0 has it written down."""
        rows = read_metrics(self.folder) if ranks.rank() == 0 else []
        here = [key for row in rows if row["step"] == self.state.step for key in row]
        found = torch.tensor(float(any(key.startswith(PREFIX) for key in here)), device=self.state.device)
        return bool(ranks.mean(found) > 0)

    def _ask_first(self) -> None:
        self._save(checkpoint.LATEST)
        try:
            self._ask()
        except UserError:
            if self.state.step == 0:  # nothing is lost, and what was wrong can be set otherwise
                checkpoint.path(self.folder, checkpoint.LATEST).unlink()
            raise

    def _ask(self) -> None:
        """Ask the benchmarks of the latest checkpoint; keep it if it is the best so far."""
        t = self.state
        with ranks.first_alone() as alone:
            if not alone or self.benchmarks is None or self.metrics is None:
                return
            key, row = self.benchmarks.measure(t.objective, self.folder, t.device)
            before = [past[key] for past in read_metrics(self.folder) if key in past]
            if row[key] > max(before, default=-math.inf):
                self._save(checkpoint.BEST)
            self.metrics.write({"step": t.step} | row)  # last: what has no row is done again

    def _judge(self, loader: Loader[Any]) -> None:
        """Validate on the same crops and masks each time; keep the checkpoint if it is the best so far."""
        t = self.state
        count = max(1, t.config.validation.samples // t.config.data.batch_size)
        with torch.random.fork_rng([]):
            losses = t.validate(islice(loader, count))
        loader.close()
        loader.epoch = loader.step = 0
        row = {f"validation/{name}": value for name, value in losses.items()}
        self.log("  ".join(f"{name} {value:.4f}" for name, value in row.items()))
        if self.metrics is None:
            return
        before = [past[VALIDATION] for past in read_metrics(self.folder) if VALIDATION in past]
        self.metrics.write({"step": t.step} | row)
        if self.benchmarks is None and row[VALIDATION] < min(before, default=math.inf):
            self._save(checkpoint.BEST)
