"""What a study consists of: a YAML file of arms, seeds, columns and what is tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from macco.pipeline.errors import UserError
from macco.pipeline.yamls import read_model
from macco.train.config import TrainConfig
from macco.train.layers import flat, parse, preset, resolve

STUDIES: Final = Path(__file__).parents[1] / "studies"

Text = Annotated[str, Field(min_length=1)]
Layer = dict[str, Any]
Figures = Mapping[str, Mapping[str, float | None]]  # percent, by benchmark and figure


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(_Strict):
    """The mean of some figures of one benchmark."""

    title: Text
    benchmark: Text
    figures: Annotated[list[Text], Field(min_length=1)]

    def of(self, figures: Figures) -> float | None:
        """Percent; None where a figure is undefined. Raises UserError where there is no such figure."""
        there = figures.get(self.benchmark, {})
        for name in self.figures:
            if name not in there:
                raise UserError(
                    f"{self.benchmark} has no figure {name!r}: it has {', '.join(there) or 'not been run'}"
                )
        values = [value for name in self.figures if (value := there[name]) is not None]
        return sum(values) / len(values) if len(values) == len(self.figures) else None


class Column(Measure):
    """A column of the table."""

    plot: bool = False  # whether it is a panel of the plot too


class Limit(Measure):
    """What tuning must not give up: at most `within` points below the model that training starts from."""

    within: float


class Arm(_Strict):
    """One way to train. Its settings win over the base's and over what was tuned."""

    title: Text
    group: str = ""
    presets: list[Text] = []
    layer: Layer = {}
    times_steps: Annotated[float, Field(gt=0)] = 1  # so many times the steps of the others
    warm_up: str | None = None  # the one it starts from; "": none; None: the first


class Family(_Strict):
    """Arms that share hyper-parameters, which are chosen on one of them."""

    arm: Text  # the one that is trained to choose
    arms: list[Text]  # those that get what was chosen
    grid: dict[Text, Annotated[list[Any], Field(min_length=1)]] = {}  # dotted key -> candidates
    values: dict[Text, Any] = {}  # what is used without tuning

    def candidates(self) -> list[dict[str, Any]]:
        """Every combination of the grid; one empty where nothing is tuned."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


class Tuning(_Strict):
    """How hyper-parameters are chosen: the best on the validation benchmarks within the limits."""

    seed: int  # none of the study's
    benchmarks: list[Text]
    best: list[Measure]  # their mean
    limits: list[Limit] = []
    families: dict[Text, Family]


class Control(_Strict):
    """The positive control: a method that is known to move these figures must move them here."""

    arm: Text
    figures: list[Measure]


class StudyPlan(_Strict):
    """A study."""

    title: Text
    base: Layer  # what all arms share
    warm_up: dict[Text, Layer] = {}  # runs whose predictors, or joint encoder, arms start from
    seeds: Annotated[list[int], Field(min_length=1)]
    benchmarks: Annotated[list[Text], Field(min_length=1)]
    templates: str = "openai"  # prompts of zero-shot classification
    baseline: Text  # the arm that the others are compared with
    control: Control
    arms: dict[Text, Arm]
    columns: Annotated[list[Column], Field(min_length=1)]
    tune: Tuning

    def config(self, arm: str, seed: int, values: Mapping[str, Any], overrides: Layer) -> TrainConfig:
        """The settings of one run; `values`: what was tuned, by dotted key."""
        chosen = self.arms[arm]
        tuned = parse(f"{key}={value}" for key, value in values.items())
        presets = [preset(name) for name in chosen.presets]
        # Runs share the cores: processes that read would take them from each other, unless asked for.
        alone: Layer = {"data": {"workers": 0}}
        config = resolve(alone, self.base, tuned, *presets, chosen.layer, overrides, {"seed": seed})
        steps, epochs = round(config.steps * chosen.times_steps), config.epochs * chosen.times_steps
        return replace(config, steps=steps, epochs=epochs)

    def family(self, arm: str) -> str | None:
        """The family that an arm has its hyper-parameters from."""
        return next((name for name, family in self.tune.families.items() if arm in family.arms), None)

    def warmed(self, arm: str) -> str | None:
        """The warm-up that an arm starts from, if any."""
        own = self.arms[arm].warm_up
        return next(iter(self.warm_up), None) if own is None else own or None

    def choose(self, arms: Sequence[str]) -> list[str]:
        """The arms of these names, in the plan's order; all where there are none.

        Raises UserError for an unknown name.
        """
        for name in arms:
            _require(name, self.arms, "--arms")
        return [name for name in self.arms if name in arms or not arms]

    def check(self, overrides: Layer, tune: bool = True) -> None:
        """Raise UserError where names do not fit each other, or an arm's settings are none.

        tune: whether hyper-parameters are chosen, so that none of those may be given.
        """
        _require(self.baseline, self.arms, "baseline")
        _require(self.control.arm, self.arms, "control.arm")
        if self.tune.seed in self.seeds:
            raise UserError(f"tune.seed {self.tune.seed} is a seed of the study too: choose another")
        for name, family in self.tune.families.items():
            where = f"tune.families.{name}"
            for arm in (family.arm, *family.arms):
                _require(arm, self.arms, where)
                if arm in family.arms and self.family(arm) != name:
                    raise UserError(f"{where}: {arm} is of family {self.family(arm)} too")
            fixed = flat(overrides) | flat(self.arms[family.arm].layer)
            if taken := [key for key in family.grid if tune and key in fixed]:
                raise UserError(f"{where} tunes {taken[0]}, which is given: leave it out of one of the two")
            for values in (family.values, *family.candidates()):
                self.config(family.arm, self.tune.seed, values, overrides)
        for arm in self.arms:
            self.config(arm, self.seeds[0], {}, overrides)
            if start := self.arms[arm].warm_up:
                _require(start, self.warm_up, f"arms.{arm}.warm_up")
        for layer in self.warm_up.values():
            resolve(self.base, overrides, layer)
        for measure in (*self.columns, *self.control.figures):
            _require(measure.benchmark, self.benchmarks, f"the benchmark of {measure.title!r}")
        for measure in (*self.tune.best, *self.tune.limits):
            _require(measure.benchmark, self.tune.benchmarks, f"the benchmark of {measure.title!r}")


def load_plan(name_or_path: str) -> StudyPlan:
    """A study that ships with macco by its name, or a YAML file.

    Raises UserError where there is none, or it is malformed.
    """
    path = Path(name_or_path)
    if not path.suffix:
        known = sorted(file.stem for file in STUDIES.glob("*.yaml"))
        if name_or_path not in known:
            raise UserError(
                f"no study is called {name_or_path!r}: there are {', '.join(known)}, or give a YAML file"
            )
        path = STUDIES / f"{name_or_path}.yaml"
    return read_model(path, StudyPlan)


def _require(name: str, known: Any, where: str) -> None:
    if name not in known:
        near = get_close_matches(name, list(known), n=3) or list(known)
        raise UserError(f"{where}: {name!r} is unknown: did you mean {', '.join(near)}?")
