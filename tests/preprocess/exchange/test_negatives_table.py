"""Negatives in a store, as an export reads them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.pipeline.errors import UserError
from macco.pipeline.schema import NEGATIVE_ROWS
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.exchange.tsv import export_tsv
from tests.support.rows import record, tables


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"sample_id": [["x"]], "kind": ["swap_object"], "caption": ["a cat"]}),
        pa.table({"sample_id": ["x"], "kind": ["swap_object"]}),
        NEGATIVE_ROWS.empty_table().drop_columns(["kind"]),
    ],
)
def test_another_table_in_their_place_is_one_line(table: pa.Table, tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), ExtractConfig().settings())
    store.commit("a", tables("a", ["a dog"]), record("a"))
    store.make("negatives")
    pq.write_table(table, store.path("negatives/a.parquet"))
    with pytest.raises(UserError, match="macco-train negatives"):
        export_tsv(store, tmp_path / "out.tsv", 0.3)
