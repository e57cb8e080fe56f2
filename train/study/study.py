"""A study from beginning to end. Every stage skips what is done, so that a stopped study goes on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.schema import NEGATIVES, UNITS
from macco.pipeline.store import Store
from macco.train.config import TrainConfig
from macco.train.data.negatives import write_negatives
from macco.train.data.units import write_units
from macco.train.layers import dump, merged, parse, read_saved, require_same, resolve
from macco.train.study import tuning
from macco.train.study.plan import Layer, Measure, StudyPlan
from macco.train.study.plot import svg
from macco.train.study.record import Record, read_record
from macco.train.study.table import Runs, control, control_lines, markdown, summary
from macco.train.study.trial import Trial
from macco.train.study.workers import Stop, Workers

BASE: Final = "base.yaml"
TUNED: Final = "tuned.yaml"
START: Final = "start"
WARM_UP: Final = "warm-up"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for of a plan."""

    out: Path
    test: Path  # data of the benchmarks that are reported
    val: Path  # of those that tuning looks at
    overrides: Layer
    arms: Sequence[str] = ()  # none: all
    seeds: Sequence[int] = ()
    processes: int = 0  # 0: this process
    tune: bool = True  # False: the families' `values`
    keep: bool = False  # checkpoints


@dataclass
class Study:
    """A study under way. Runs lie in OUT/runs/ARM-SEED, candidates in OUT/tune/FAMILY/VALUES."""

    plan: StudyPlan
    order: Order
    stop: Stop
    say: Say
    failed: dict[str, str] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)  # by family: chosen, candidates
    values: dict[str, dict[str, Any]] = field(default_factory=dict)  # by family: what its arms get

    def run(self) -> bool:
        """Go to the end, or until asked to stop; returns whether it was the end. `failed` has what failed.

        Raises:
            UserError: the plan is none, the start cannot be evaluated, or OUT was begun otherwise.
        """
        plan, order = self.plan, self.order
        plan.check(order.overrides, order.tune)
        arms = plan.choose(order.arms)
        seeds = list(dict.fromkeys(order.seeds or plan.seeds))
        if plan.tune.seed in seeds:
            raise UserError(f"seed {plan.tune.seed} is the one that tuning uses: choose others")
        self._begin(arms)
        first = [name for name in arms if name in (plan.baseline, plan.control.arm)]
        rest = [name for name in arms if name not in first]
        with Workers(order.processes, self.stop) as workers:
            if not self._start(workers) or not self._warm_up(workers, arms):
                return False
            for wave in (first, rest):
                if not self._tune(workers, wave):
                    return False
                jobs = [self._job(arm, seed) for seed in seeds for arm in wave]
                complete = self._do(workers, jobs)
                self.report()
                if not complete:
                    return False
                if wave is first and wave:
                    for line in control_lines(plan, control(plan, self._runs())):
                        self.say(line)
        return True

    def report(self) -> None:
        """Write study.json, study.md and study.svg of all runs that are finished."""
        start = read_record(self.order.out / START)
        if start is None:
            return
        plan, base = self.plan, resolve(read_saved(self.order.out / BASE))
        results = summary(plan, self._runs(), start)
        results["settings"] = {
            "start": f"{base.model.name} {base.model.pretrained}".strip(),
            "steps": base.steps or f"of {base.epochs:g} epochs",
            "batch size": base.data.batch_size,
        }
        results["tuned"], results["failed"] = self.tuned, self.failed
        put_file(self.order.out / "study.json", json.dumps(results, indent=1, ensure_ascii=False).encode())
        put_file(self.order.out / "study.md", markdown(plan, results).encode())
        put_file(self.order.out / "study.svg", svg(plan, results).encode())

    def _begin(self, arms: Sequence[str]) -> None:
        """Refuse a folder of another study, and make the hard negatives and units that arms need."""
        plan, order = self.plan, self.order
        config = resolve(plan.base, order.overrides)
        if not config.data.store:
            raise UserError("no store to train on: give --store STORE")
        store = Store.open(config.data.store)
        saved = order.out / BASE
        if saved.is_file():
            require_same(resolve(read_saved(saved)), config, order.out)
        put_file(saved, dump(config).encode())
        if (tuned := order.out / TUNED).is_file():  # of the arms of an earlier command too
            self.tuned = yaml.safe_load(tuned.read_text("utf-8")) or {}
        settings = [self._config(arm, 0, {}).settings for arm in arms]
        wanted: dict[str, tuple[bool, Callable[[Store, int, Say], int]]] = {
            NEGATIVES: (any(one.hard_negatives for one in settings), write_negatives),
            UNITS: (any(one.reads_units for one in settings), write_units),
        }
        for table, (read, write) in wanted.items():
            if read and not store.committed() <= store.names(".parquet", table):
                write(store, 0, self.say)

    def _start(self, workers: Workers) -> bool:
        """Evaluate the model that training starts from."""
        plan, order = self.plan, self.order
        base = resolve(plan.base, order.overrides)
        data = {START: (plan.benchmarks, order.test)}
        if order.tune:
            data[f"{START}-validation"] = (plan.tune.benchmarks, order.val)
        jobs = [
            Trial(name, order.out / name, base, benchmarks, folder, plan.templates, trained=False)
            for name, (benchmarks, folder) in data.items()
        ]
        complete = self._do(workers, jobs)
        if self.failed:
            raise UserError("; ".join(self.failed.values()))
        if complete:  # a figure that is not there should not be missed after hours
            for job in jobs:
                record = read_record(job.folder)
                reported, tuned = [*plan.columns, *plan.control.figures], [*plan.tune.best, *plan.tune.limits]
                measures: Sequence[Measure] = reported if job.name == START else tuned
                for measure in measures if record else ():
                    measure.of(record.figures)  # type: ignore[union-attr]
        return complete

    def _warm_up(self, workers: Workers, arms: Sequence[str]) -> bool:
        """Train what runs start from, where the plan has such: in OUT/warm-up/NAME."""
        plan, order = self.plan, self.order
        alone: Layer = {"data": {"workers": 0}, "seed": plan.tune.seed}
        jobs = [
            Trial(
                f"{WARM_UP} {name}",
                self._warmed(name),
                resolve(alone, plan.base, order.overrides, plan.warm_up[name]),
                [],
                order.val,
                plan.templates,
                keep=True,
            )
            for name in dict.fromkeys(map(plan.warmed, arms))
            if name
        ]
        complete = self._do(workers, jobs)
        if self.failed:
            raise UserError("; ".join(self.failed.values()))
        return complete

    def _warmed(self, name: str) -> Path:
        return self.order.out / WARM_UP / name

    def _tune(self, workers: Workers, arms: Sequence[str]) -> bool:
        """Choose the hyper-parameters of the families of these arms, where that is not done."""
        plan, order = self.plan, self.order
        families = [
            name for name in dict.fromkeys(map(plan.family, arms)) if name and name not in self.values
        ]
        if not order.tune:
            self.values |= {name: dict(plan.tune.families[name].values) for name in families}
            return True
        grids = {name: plan.tune.families[name].candidates() for name in families}
        jobs = {
            (name, number): self._candidate(name, values)
            for name, grid in grids.items()
            for number, values in enumerate(grid)
            if len(grid) > 1
        }
        if not self._do(workers, list(jobs.values())):
            return False
        start = read_record(order.out / f"{START}-validation")
        for name, grid in grids.items():
            if len(grid) == 1:
                self.values[name] = {**plan.tune.families[name].values, **grid[0]}
                continue
            candidates = [
                tuning.judge(
                    plan.tune, values, read_record(jobs[name, number].folder), start.figures if start else {}
                )
                for number, values in enumerate(grid)
            ]
            best = tuning.choose(name, candidates)
            self.tuned |= tuning.report({name: best}, {name: candidates})
            self.values[name] = best.values
            self.say(f"tuned {name}: {best.values}")
        put_file(order.out / TUNED, yaml.safe_dump(self.tuned, sort_keys=False).encode())
        return True

    def _candidate(self, family: str, values: dict[str, Any]) -> Trial:
        plan, order = self.plan, self.order
        config = self._config(plan.tune.families[family].arm, plan.tune.seed, values)
        name = ",".join(f"{key}={value}" for key, value in values.items())
        folder = order.out / "tune" / family / name
        return Trial(f"{family} {name}", folder, config, plan.tune.benchmarks, order.val, plan.templates)

    def _job(self, arm: str, seed: int) -> Trial:
        plan, order = self.plan, self.order
        values = self.values.get(plan.family(arm) or "", {})
        config, folder = self._config(arm, seed, values), self._folder(arm, seed)
        return Trial(
            f"{arm} seed {seed}", folder, config, plan.benchmarks, order.test, plan.templates, keep=order.keep
        )

    def _config(self, arm: str, seed: int, values: dict[str, Any]) -> TrainConfig:
        overrides = self.order.overrides
        if start := self.plan.warmed(arm):
            overrides = merged(overrides, parse([f"model.predictors={self._warmed(start)}"]))
        return self.plan.config(arm, seed, values, overrides)

    def _folder(self, arm: str, seed: int) -> Path:
        return self.order.out / "runs" / f"{arm}-{seed}"

    def _do(self, workers: Workers, jobs: Sequence[Trial]) -> bool:
        """Do what is not done of some jobs; returns whether all were tried."""
        left = [job for job in jobs if not job.finished()]
        done = 0
        for number, one in enumerate(workers.do(left), 1):
            done = number
            if one.error:
                self.failed[one.job.name] = one.error
            record = read_record(one.job.folder)
            said = one.error or (f"{record.seconds:.0f} s" if record else "")
            self.say(f"{len(jobs) - len(left) + number}/{len(jobs)} {one.job.name}: {said}")
        return done == len(left)

    def _runs(self) -> Runs:
        """Every finished run of the plan, whether or not it is asked for now."""
        return {arm: runs for arm in self.plan.arms if (runs := dict(self._finished(arm)))}

    def _finished(self, arm: str) -> Iterator[tuple[int, Record]]:
        for seed in sorted({*self.plan.seeds, *self.order.seeds}):
            record = read_record(self._folder(arm, seed))
            if record is not None:
                yield seed, record
