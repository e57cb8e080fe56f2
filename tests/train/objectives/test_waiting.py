"""Nothing in a step makes the host wait for the device."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from macco.train.layers import parse, resolve
from macco.train.loop.state import State, build_model
from macco.train.loop.window import LossWindow
from macco.train.objectives.objective import load_objective
from tests.support import ROOT
from tests.support.objective_batches import CASES
from tests.support.syncs import Syncs
from tests.support.tiny import tiny_clip
from tests.support.tiny_t5 import write_t5


def test_what_waits_is_seen() -> None:
    x = torch.arange(4)
    with Syncs() as seen:
        x.sum().item()
        x[x > 1]
        x[torch.tensor([1, 2])]
        torch.unique(x)
        x.nonzero()
        torch.tensor([1, 2], device=x.device)
        torch.tensor([1, 2]).to(x.device, non_blocking=True)
        x.new_full((), 1)
    assert len(seen.found) == 5


@pytest.mark.parametrize("settings", [[], ["micro_batch=3"], ["optimizer.clip_norm=1.0"]])
@pytest.mark.parametrize("name", CASES)
def test_a_step_never_waits(name: str, settings: list[str], tmp_path: Path) -> None:
    case: Any = CASES[name]
    t5 = write_t5(tmp_path)
    given = [each.replace("{t5}", t5) for each in case.settings]
    config = resolve(parse([*given, *settings, "device=cpu"]))
    objective = load_objective(config)
    state = State(objective, build_model(objective, tiny_clip(), torch.device("cpu")).double(), 8)
    # As on CUDA: the plain one reads its step count, which lies on the CPU.
    for group in state.optimizer.param_groups:
        group |= {"fused": True, "foreach": False}
    batch = case.batch()
    state.update(batch, norms=True)
    with Syncs() as seen:
        losses, _ = state.update(batch, norms=True)
        LossWindow().add(1, batch.ids, losses, stop=False)
    assert seen.found == []


def test_the_benchmark_of_a_gpu_needs_nothing_that_reads_stores() -> None:
    code = """
import sys
from importlib.machinery import PathFinder

class Rest(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = {"spacy", "ray", "duckdb", "pyarrow", "pandas", "typer", "pydantic"}
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
import benchmarks.gpu
print({"duckdb", "pydantic", "fsspec"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
