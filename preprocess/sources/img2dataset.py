"""What img2dataset writes down beside a tar: how many images it should hold, and which could not be had."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from macco.pipeline.urls import exists, folder, join, open_url, stem


def beside(url: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Return the number of downloaded samples and the failed rows, as img2dataset wrote them down."""
    base = join(folder(url), stem(url))
    if url != f"{base}.parquet" and exists(f"{base}.parquet"):
        with open_url(f"{base}.parquet") as stream:
            try:
                names = pq.read_schema(stream).names
                if not {"key", "status"} <= set(names):
                    return None, []  # somebody else's table
                stream.seek(0)
                columns = [name for name in ("key", "status", "error_message", "caption") if name in names]
                table = pq.read_table(stream, columns=columns)
            except pa.ArrowInvalid as error:
                return None, [
                    {"key": "#sidecar", "status": f"unreadable {base}.parquet", "error_message": error}
                ]
        failed = table.filter(pc.not_equal(table["status"], "success"))
        return table.num_rows - failed.num_rows, failed.to_pylist()
    if exists(f"{base}_stats.json"):
        with open_url(f"{base}_stats.json") as stream:
            try:
                return int(json.load(stream)["successes"]), []
            except (ValueError, KeyError, TypeError):
                return None, []
    return None, []
