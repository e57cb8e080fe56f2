"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.store import Store
from macco.train.clip.start import load_start
from macco.train.config import DataConfig, TrainConfig, dump, read, require_same, resolve
from macco.train.data.batch import Batch
from macco.train.data.loader import Loader, RegionPlan
from macco.train.data.masks import MaskConfig
from macco.train.data.open import open_training_data
from macco.train.distributed import ranks
from macco.train.distributed.processes import choose_device, joined
from macco.train.loop.state import Training
from macco.train.loop.window import Window
from macco.train.objectives.joint.features import prepared
from macco.train.objectives.joint.settings import JointConfig
from macco.train.objectives.objective import Objective
from macco.train.runs import checkpoint
from macco.train.runs.metrics import Metrics, Row
from macco.train.runs.metrics import read as read_metrics

CONFIG = "config.yaml"
VALIDATION = "validation/loss"  # what "best" goes by

Log = Callable[[str], None]


def open_loader(
    data: DataConfig,
    model: Objective,
    tokenizer: Any,
    masks: MaskConfig,
    seed: int,
    log: Log,
    joint: JointConfig | None = None,
    device: torch.device | None = None,
) -> Loader:
    """The loader of a data set for a model's sizes; with `joint`, of the regions that it asks for.

    Features of a frozen tower are made on `device` first, where the store has not got them.
    """
    world = ranks.world()
    if data.batch_size % world:
        raise UserError(f"data.batch_size {data.batch_size} is no multiple of the {world} ranks")
    (rows, columns), patch = model.image.grid, model.image.patch
    if rows != columns or patch[0] != patch[1]:
        raise UserError("the loader cuts square images of square patches, unlike this model's")
    regions = None
    if joint is not None:
        regions = RegionPlan(joint.regions, joint.count, joint.box_score, (rows, columns))
        if joint.tower == "frozen":
            made = prepared(Store.open(data.store), model, regions, device or torch.device("cpu"), log)
            regions = replace(regions, features=made)
    return open_training_data(
        data.store,
        tokenizer,
        image_size=rows * patch[0],
        patch_size=patch[0],
        batch_size=data.batch_size // world,
        where=data.where,
        keep=data.keep,
        masks=masks,
        full_length=model.text.fixed_length,
        cache=data.cache or None,
        negatives=model.hard_negatives,
        regions=regions,
        seed=seed,
        rank=ranks.rank(),
        world_size=world,
        workers=data.workers,
        prefetch=data.prefetch,
        max_broken=data.max_broken,
        log=log,
    )


def train(config: TrainConfig, run: Path, stop: Callable[[], bool], log: Log = print) -> bool:
    """Train until done, or until `stop` says so; a run folder that has a checkpoint goes on from it.

    Writes config.yaml, metrics.jsonl and checkpoints/ into `run`. Returns whether the run is complete.
    Under torchrun every rank calls this with the same arguments; rank 0 writes.

    Raises:
        UserError: `run` was begun with other settings, or a loss is not finite (see Window).
    """
    device = choose_device(config.device)
    if not config.data.store:
        raise UserError("no store to train on: give --store STORE")
    Store.open(config.data.store)  # before any weights are fetched
    with joined(device):
        lead = ranks.rank() == 0
        say = log if lead else lambda line: None
        if checkpoint.path(run, checkpoint.LATEST).is_file():
            require_same(resolve(read(run / CONFIG)), config, run)
        start = load_start(config.model, config.seed)
        training = begin(config, start.model, device)
        joint = None if config.objective == "macco" else config.joint
        opened = (training.model, start.tokenizer, config.masks, config.seed, say, joint, device)
        loader = open_loader(config.data, *opened)
        judges = None
        if config.validation.where or config.validation.store:
            v = config.validation
            judges = open_loader(
                replace(config.data, store=v.store or config.data.store, where=v.where), *opened
            )
        training.total = training.first + (config.steps or max(1, round(config.epochs * len(loader))))
        if checkpoint.path(run, checkpoint.LATEST).is_file():
            state = checkpoint.load(run, checkpoint.LATEST)
            try:
                training.load_state_dict(state)
            except (RuntimeError, ValueError) as error:
                raise UserError(
                    f"{config.model.name} is no longer the model that {run} started from"
                ) from error
            loader.load_state_dict(state["data"])
            say(f"going on from step {training.step} of {training.total}")
        metrics = None
        if lead:
            put_file(run / CONFIG, dump(config).encode())
            metrics = Metrics(
                run, training.step, tensorboard=config.tensorboard, wandb=config.wandb, config=asdict(config)
            )
        try:
            return Loop(training, loader, judges, run, metrics, say).run(stop)
        finally:
            loader.close()
            if metrics is not None:
                metrics.close()


def begin(config: TrainConfig, clip: Any, device: torch.device) -> Training:
    """The state of a run before its first step, by its objective."""
    if config.objective == "macco":
        return Training(config, clip, device)
    from macco.train.objectives.joint.step import JointTraining

    return JointTraining(config, clip, device)


class Loop:
    """Steps, with what is written between them."""

    def __init__(
        self,
        training: Training,
        loader: Loader,
        judges: Loader | None,
        run: Path,
        metrics: Metrics | None,
        log: Log,
    ) -> None:
        self.training, self.loader, self.judges = training, loader, judges
        self.folder, self.metrics, self.log = run, metrics, log
        self.window = Window()
        self.seconds = 0.0  # of the steps since the last row: saving and validating are left out

    def run(self, stop: Callable[[], bool]) -> bool:
        """Go to the end, or until any rank is asked to stop; returns whether it was the end."""
        t, c = self.training, self.training.config
        # Alone on the CPU a look costs nothing.
        look = 1 if t.device.type == "cpu" and ranks.world() == 1 else c.log_every
        batches, stopped, saved = self._batches(), False, t.step
        while t.step < t.total and not stopped:
            began = time.perf_counter()
            try:
                with torch.random.fork_rng([]):  # starting the loader's processes draws a number
                    batch = next(batches)
            except RuntimeError:
                if not stop():
                    raise
                break  # Ctrl-C has ended the loader's processes too
            last = t.step + 1 == t.total
            row = last or (t.step + 1) % c.log_every == 0
            save = last or bool(c.save_every and (t.step + 1) % c.save_every == 0)
            losses, norms = t.update(batch, norms=row)
            self.window.add(t.step, batch.ids, losses, stop())
            if row or save or t.step % look == 0:
                stopped = self.window.look(self.folder)
            self.seconds += time.perf_counter() - began
            if row or stopped:
                self._row({name: float(value) for name, value in norms.items()})
            if save or stopped:
                self._save(checkpoint.LATEST)
                saved = t.step
            if save and self.judges is not None:
                self._judge(self.judges)
        if saved < t.step:
            self._save(checkpoint.LATEST)
        return t.step >= t.total

    def _batches(self) -> Iterator[Batch]:
        while True:
            yield from self.loader

    def _row(self, norms: Row) -> None:
        t = self.training
        losses, steps = self.window.mean()
        row = losses | norms | t.scalars()
        row |= {
            "rate": t.optimizer.param_groups[0]["lr"],
            "rate_new": t.optimizer.param_groups[-1]["lr"],
            "epoch": t.step / len(self.loader),
            "samples_per_second": steps * t.config.data.batch_size / self.seconds,
            "broken_images": float(self.loader.broken),
        }
        self.seconds = 0.0
        if self.metrics is not None:
            self.metrics.write({"step": t.step} | row)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self.log(f"step {t.step}/{t.total}  {shown}  {row['samples_per_second']:.1f} samples/s")

    def _save(self, name: str) -> None:
        if ranks.rank() == 0:
            state = self.training.state_dict() | {"data": self.loader.state_dict()}
            checkpoint.save(self.folder, name, state)

    def _judge(self, loader: Loader) -> None:
        """Validate on the same crops and masks each time; keep the checkpoint if it is the best so far."""
        t = self.training
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
        if row[VALIDATION] < min(before, default=math.inf):
            self._save(checkpoint.BEST)
