"""How the files of a store are written: equal rows are equal bytes."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Ids share long prefixes with their neighbours, which delta encoding stores once.
_DELTA = ("sample_id", "concept_id", "subject_id", "object_id", "owner_id", "key")


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """What ParquetWriter is told for tables of `schema`."""
    delta = [name for name in _DELTA if name in schema.names]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in delta],
        "column_encoding": dict.fromkeys(delta, "DELTA_BYTE_ARRAY"),
    }


def parquet_bytes(schema: pa.Schema, table: pa.Table) -> bytes:
    """Serialise a table with exactly `schema`."""
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, **parquet_options(schema)) as writer:
        writer.write_table(table.cast(schema))
    return out.getvalue()
