"""The check of reference vectors, as the command that it is."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from tests import check_vectors
from tests.support import DATA, ROOT

FILES = sorted((DATA / "vectors").glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_changed_number_is_found(path: Path, tmp_path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    for part in ("loss", "grad"):
        name = max((n for n in tensors if f".{part}." in n), key=lambda n: float(tensors[n].abs().max()))
        changed = tensors | {name: tensors[name] * (1 + 1e-8)}
        save_file(changed, tmp_path / "changed.safetensors", metadata)
        assert check_vectors.main([str(tmp_path / "changed.safetensors")]) == 1


@pytest.mark.processes
def test_the_command_takes_all_files(tmp_path: Path) -> None:
    assert len(FILES) == 5
    command = [sys.executable, str(ROOT / "tests" / "check_vectors.py"), *map(str, FILES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 beyond 1e-09") == 5
