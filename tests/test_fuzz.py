"""Damaged input, some of each kind; by hand, ten thousand: see benchmarks/fuzz.py."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.fuzz import KINDS, fuzz
from macco.pipeline.errors import UserError
from macco.pipeline.yamls import read_yaml
from macco.preprocess.sources import plan

CASES = {"stores": 40, "runs": 40}  # of those of which each takes a tenth of a second


@pytest.mark.parametrize("kind", KINDS)
def test_is_taken_or_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    found = fuzz(kind, CASES.get(kind, 100), 7, tmp_path)
    assert found.exceptions == {}
    assert 0 < found.refused < found.cases


def test_a_text_of_parquet_that_is_no_utf8_is_a_row_with_its_status(tmp_path: Path) -> None:
    table = pa.table({"image": ["a.jpg", "b.jpg"], "caption": ["a dog", "a XX cat"]})
    pq.write_table(table, tmp_path / "0.parquet", compression="none", use_dictionary=False)
    data = (tmp_path / "0.parquet").read_bytes()
    (tmp_path / "0.parquet").write_bytes(data.replace(b"XX", b"\xf8\xf8"))
    (shard,) = plan([str(tmp_path / "0.parquet")])
    good, bad = (source.captions for source in shard.read())
    assert good == ("a dog",)
    assert bad[0].status == "bad_encoding"  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["a: 2020-13-45", "!!int x", "[" * 3000, "\x00", "? {a: 1}: 2"])
def test_yaml_that_is_none_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text(text)
    with pytest.raises(UserError, match=r"0\.yaml"):
        read_yaml(tmp_path / "0.yaml")
