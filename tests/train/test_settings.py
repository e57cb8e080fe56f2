"""What settings refuse before anything is read."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.train.cli import app
from macco.train.config import DRAWN, READ_WITH
from macco.train.layers import flat, parse, preset, require_read, resolve, values

DEFAULTS = flat(values(resolve({})))
MAY_BE_NEGATIVE = {"c2lip.bias"}


def numbers() -> list[str]:
    """The keys of all settings that hold a number, or may hold one."""
    return [key for key, value in DEFAULTS.items() if value is None or type(value) in (int, float)]


def taken(key: str, value: str) -> bool:
    try:
        resolve(parse([f"{key}={value}"]))
    except UserError:
        return False
    return True


@pytest.mark.parametrize("key", numbers())
def test_every_number_has_a_range(key: str) -> None:
    assert not any(taken(key, value) for value in ("nan", "inf", "-inf", "1e400"))
    assert taken(key, "-1") == (key in MAY_BE_NEGATIVE)


@pytest.mark.parametrize("key", ["ema", "optimizer.beta1", "optimizer.beta2"])
def test_an_average_that_never_moves_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"{key} is 1: it is less than 1"):
        resolve(parse([f"{key}=1"]))


@pytest.mark.parametrize("command", [["negatives", "s"], ["units", "s"], ["eval", "m", "--out", "o"]])
def test_no_generator_takes_a_seed_below_0(command: list[str]) -> None:
    done: Any = CliRunner().invoke(app, [*command, "--seed", "-1"])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def given(*assignments: str, presets: str = "") -> None:
    by_hand = parse(assignments)
    require_read(resolve(preset(presets) if presets else {}, by_hand), by_hand)


OTHERS = {
    "distill.teacher": "frozen",
    "method.congruence_kind": "row-normalised",
    "joint.eval_detector": "own",
}


@pytest.mark.parametrize("key", READ_WITH)
def test_what_is_read_with_another_setting_alone_is_refused_where_that_is_off(key: str) -> None:
    switch, value = READ_WITH[key], OTHERS.get(key, "1" if key == "validation.every" else "0.5")
    own = ["objective=cacr"] if key.startswith("joint.") else []
    more = ["method.negatives=1"] if key == "method.margin_limit" else []
    with pytest.raises(UserError, match=f"{key} is read with {switch} alone"):
        given(*own, *more, f"{key}={value}")
    on = {"joint.eval_store": "s", "masks.random": "true", "validation.benchmarks": "demo"}.get(switch, "1")
    given(*own, *more, f"{key}={value}", f"{switch}={on}")
    given(*own, *more, f"{key}={value}", f"{switch}={DEFAULTS[switch]}")  # turned off by hand


@pytest.mark.parametrize("objective", ["fsc", "c2lip", "csclip", "read", "cacr"])
@pytest.mark.parametrize("name", sorted(DRAWN))
def test_how_masks_are_drawn_is_refused_where_none_are(objective: str, name: str) -> None:
    value = "true" if name in ("same", "random") else "0.5"
    with pytest.raises(UserError, match=f"masks.{name} says how masks are drawn: {objective} draws none"):
        given(f"objective={objective}", f"masks.{name}={value}", "masks.random=true")
    given("objective=macco", f"masks.{name}={value}", "masks.random=true")


def test_epochs_are_refused_where_a_preset_has_steps() -> None:
    with pytest.raises(UserError, match="epochs is not read: steps is 160"):
        given("epochs=3", presets="tiny")
    given("epochs=3", "steps=0", presets="tiny")
    given("epochs=3", "steps=5", presets="tiny")
    given("epochs=3", presets="paper-vitb32")


@pytest.mark.parametrize("name", ["store", "where", "exclude"])
def test_an_option_and_a_setting_of_one_name_must_agree(name: str, tmp_path: Path) -> None:
    command = ["run", f"--{name}", "one", f"data.{name}=another", "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match=f"--{name} is 'one' and data.{name} is 'another': give one"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (tmp_path / "run").exists()
