"""A sample's image, read again from where the extraction found it."""

import tarfile
from functools import lru_cache
from typing import Any

import pyarrow.parquet as pq

from macco.pipeline.urls import open_url


def read_image_bytes(source: str, member: str | None, offset: int | None, size: int | None) -> bytes:
    """Return the encoded image of a row of `samples`.

    From a range of a tar where `offset` says which, else from a member of a compressed tar (slow: it is
    read up to there), a cell of a Parquet file, or an image file. Raises OSError, or KeyError where the
    source no longer holds the image.
    """
    if offset is not None:
        with open_url(source) as stream:
            stream.seek(offset)
            data = stream.read(size or -1)
        if len(data) != size:
            raise OSError(f"{source} ends before byte {offset} + {size}")
        return data
    if source.endswith((".tar.gz", ".tgz")):
        with open_url(source) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tar:
            for info in tar:
                if info.name == member and (file := tar.extractfile(info)) is not None:
                    return file.read()
        raise KeyError(f"{source} has no member {member}")
    if source.endswith(".parquet") and member is not None:
        column, _, row = member.rpartition("/")
        return _cell(source, column, int(row))
    with open_url(source) as stream:
        return stream.read()


@lru_cache(maxsize=2)
def _row_group(source: str, column: str, group: int) -> Any:
    with open_url(source) as stream:
        return pq.ParquetFile(stream).read_row_group(group, columns=[column]).column(column)


@lru_cache(maxsize=16)
def _row_group_sizes(source: str) -> list[int]:
    with open_url(source) as stream:
        metadata = pq.ParquetFile(stream).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _cell(source: str, column: str, row: int) -> bytes:
    for group, rows in enumerate(_row_group_sizes(source)):
        if row < rows:
            value = _row_group(source, column, group)[row].as_py()
            data = value["bytes"] if isinstance(value, dict) else value
            if not isinstance(data, bytes):
                raise KeyError(f"{source} has no image bytes in row {row} of {column}")
            return data
        row -= rows
    raise KeyError(f"{source} has no such row")
