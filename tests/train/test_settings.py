"""What settings refuse before anything is read."""

from typing import Any

import pytest
from typer.testing import CliRunner

from macco.pipeline.errors import UserError
from macco.train.cli import app
from macco.train.layers import flat, parse, resolve, values

DEFAULTS = flat(values(resolve({})))
MAY_BE_NEGATIVE = {"c2lip.bias"}


def numbers() -> list[str]:
    """The keys of all settings that hold a number, or may hold one."""
    return [key for key, value in DEFAULTS.items() if value is None or type(value) in (int, float)]


def taken(key: str, value: str) -> bool:
    try:
        resolve(parse([f"{key}={value}"]))
    except UserError as error:
        assert str(error).startswith(f"{key} is "), error
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
