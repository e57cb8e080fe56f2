"""The numbers of a run, as they are read again."""

from pathlib import Path

import pytest

from macco.train.runs.metrics import FILE, read


@pytest.mark.parametrize(
    "line",
    [b'{"step": 2, "loss', b"\xff\x94", b"3", b"[1]", b'"step"', b"{}", b'{"loss": 1}', b"[" * 100_000,
     b'{"step": null, "loss": 1}', b'{"step": 2, "loss": "x"}', b'{"step": 2, "loss": [1]}'],
)  # fmt: skip
def test_a_line_that_is_no_row_is_left_out(line: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"step": 1, "loss": 0.5}\n' + line + b'\n{"step": 3, "loss": NaN}\n')
    assert [row["step"] for row in read(tmp_path)] == [1, 3]
