"""What a killed, stopped or starved run leaves, the same command makes whole: no row lost, none doubled, no hang."""

from pathlib import Path

import pytest

from macco.pipeline.store import Store
from tests.preprocess.extraction.test_run import CONFIG
from tests.support.commands import Command


@pytest.mark.processes
@pytest.mark.slow
def test_a_short_campaign_of_faults() -> None:
    """Every kind of fault that a process can meet; by hand, hundreds of them: see the module's docstring."""
    said = campaign("--faults", "10", "--seed", "7", "--shards", "3", "--task", "extract")
    assert "10 kinds, 10 faults, 0 lost, 0 doubled, 0 hung, 0 stuck, 0 untrue, 0 tracebacks" in said


@pytest.mark.processes
@pytest.mark.slow
def test_each_command_that_writes_is_killed_and_meets_a_full_disk() -> None:
    said = campaign("--faults", "14", "--seed", "7", "--kind", "kill at a write", "--kind", "disk full")
    assert "2 kinds, 14 faults, 0 lost, 0 doubled, 0 hung, 0 stuck, 0 untrue, 0 tracebacks" in said
    assert "7 (1 cache, 1 compact, 1 export a file, 1 export a folder, 1 extract, 1 negatives, 1 run)" in said


def campaign(*arguments: str) -> str:
    done = Command("faults", *arguments)
    assert done.wait(600) == 0, done.out + done.err
    return done.out


@pytest.mark.parametrize("name", ["store.json", "views.sql"])
def test_a_store_whose_making_was_killed_is_made_by_the_same_command(tmp_path: Path, name: str) -> None:
    (tmp_path / f".tmp-{name}-0123abcd").touch()
    Store.create(str(tmp_path), CONFIG.settings()).close()
    assert not list(tmp_path.glob(".tmp-*"))
