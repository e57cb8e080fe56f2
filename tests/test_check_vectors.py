"""What the check of reference vectors says of files that are none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.check_vectors import main


def test_a_file_that_holds_no_vectors_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no vectors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights")
    save_file({"input.texts": torch.zeros(2)}, tmp_path / "inputs")
    told = {
        "none": "cannot be read", "text": "cannot be read", "": "cannot be read", "weights": "not a file of reference",
        "inputs": "is no file of reference vectors",
    }  # fmt: skip
    for name, words in told.items():
        with pytest.raises(SystemExit, match=words):
            main([str(tmp_path / name)])
