"""Parquet that holds images or names them."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from macco.pipeline.urls import open_url
from macco.preprocess.sources.index import Index, Table, choose_fields, index

_BATCH: Final = 64  # images in memory at a time


def load(source: Table) -> Index:
    """Read all columns that are asked for but the images' bytes."""
    with open_url(source.url) as stream:
        schema = pq.read_schema(stream)
        image, captions, key = choose_fields(source, schema.names)
        kind = _simple(schema.field(image).type)
        embedded = pa.types.is_struct(kind) or pa.types.is_large_binary(kind)
        columns = dict.fromkeys([*captions, *([] if embedded else [image]), *([key] if key else [])])
        stream.seek(0)
        table = pq.read_table(stream, columns=list(columns))
    for place, name in enumerate(table.column_names):
        wanted = pa.string() if name == image else _simple(table[name].type)
        table = table.set_column(place, name, _cast(table[name], wanted))
    return index(table, captions, image, key or (None if embedded else image), embedded=embedded)


def embedded(url: str, image: str, rows: npt.NDArray[np.int64]) -> Iterator[Any]:
    """Yield the image column's values at `rows`, which count up, a few in memory at a time."""
    with open_url(url) as stream:
        parquet = pq.ParquetFile(stream, buffer_size=2**20)
        begin = 0
        for group in range(parquet.num_row_groups):
            end = begin + parquet.metadata.row_group(group).num_rows
            left = rows[(rows >= begin) & (rows < end)]
            if len(left):
                for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=[image]):
                    inside = left[left < begin + len(batch)]
                    for row in inside:
                        yield batch.column(0)[int(row - begin)].as_py()
                    left = left[len(inside) :]
                    begin += len(batch)
                    if not len(left):
                        break
            begin = end


def _simple(kind: pa.DataType) -> pa.DataType:
    """The type that holds the same values and that all of Arrow's functions know: no views, no dictionaries."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _simple(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _simple(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_fixed_size_binary(kind):
        return pa.large_binary()
    if isinstance(
        kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType | pa.ListViewType | pa.LargeListViewType
    ):
        return pa.large_list(_simple(kind.value_type))
    return kind


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:  # Arrow has no cast from some views, nor inside lists
        return pa.chunked_array([pa.array(chunk.to_pylist(), kind) for chunk in column.chunks], kind)
