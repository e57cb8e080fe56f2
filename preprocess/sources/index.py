"""A table of images and captions in memory, without its image bytes: which rows make which image."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from macco.pipeline.errors import UserError
from macco.preprocess.sources.source_image import IMAGE

# Looked for in this order where no field is named: open_clip's names first.
IMAGE_FIELDS: Final = ("filepath", "image", "jpg", "image_path", "path", "file_name")
CAPTION_FIELDS: Final = ("title", "caption", "captions", "text")


@dataclass(frozen=True)
class Table:
    """A table and how to read it; None and () stand for the usual fields."""

    url: str
    format: str  # table | csv | parquet | coco | karpathy | json | jsonl
    captions: tuple[str, ...]
    image: str | None
    key: str | None
    image_root: str | None


@dataclass(frozen=True, slots=True)
class Index:
    """All of a table but its image bytes: rows order[starts[i]:starts[i + 1]] are image i, first to last."""

    table: pa.Table
    captions: tuple[str, ...]
    image: str
    key: str | None  # the column whose equal values make one image; None: each row is one
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    embedded: bool = False  # the image column holds bytes, and is not in `table`
    as_json: bool = False  # captions are JSON, of any type
    broken: list[tuple[int, str]] = field(default_factory=list)  # line and problem of rows that do not fit


def index(
    table: pa.Table,
    captions: tuple[str, ...],
    image: str,
    key: str | None,
    *,
    embedded: bool = False,
    as_json: bool = False,
    broken: Sequence[tuple[int, str]] = (),
) -> Index:
    """Group a table's rows by `key`, in order of first appearance. A row whose key is empty is an image of its own."""
    if key is None:
        order = np.arange(table.num_rows)
        starts = np.arange(table.num_rows + 1)
    else:  # dictionary codes count up in order of first appearance
        if key != image:
            table = table.set_column(table.column_names.index(key), key, _without_blanks(table[key]))
        chunks = table[key].dictionary_encode(null_encoding="encode").chunks
        codes = np.concatenate([np.empty(0, np.int64), *(chunk.indices.to_numpy() for chunk in chunks)])
        if key != image and table[key].null_count:
            codes = _each_its_own(codes, table[key].is_null().to_numpy())
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(codes.max(initial=-1) + 2))
    return Index(table, captions, image, key, order, starts, embedded, as_json, list(broken))


def _without_blanks(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keys with nothing, whatever stands for it, as null."""
    kind, blank = keys.type, pc.is_null(keys, nan_is_null=pa.types.is_floating(keys.type))
    if kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        blank = pc.or_(blank, pc.equal(pc.binary_length(keys), 0).fill_null(True))
    return pc.if_else(blank, pa.scalar(None, kind), keys) if pc.any(blank).as_py() else keys


def _each_its_own(codes: npt.NDArray[np.int64], blank: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Codes that count up in order of first appearance again, where each blank has one that no other has."""
    codes = codes.astype(np.int64)
    codes[blank] = codes.max() + 1 + np.arange(blank.sum())
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]


def choose_fields(source: Table, columns: Sequence[str]) -> tuple[str, tuple[str, ...], str | None]:
    """The columns of the image, of the captions and of the key; raises UserError that names the nearest."""

    def usual(names: Sequence[str], option: str) -> str:
        for name in names:
            if name in columns:
                return name
        raise UserError(
            f"{source.url} has no column {' or '.join(names)}; name one with {option}: {', '.join(columns)}"
            f"{_no_header(columns, names[0]) or _nearest(names, columns, option)}"
        )

    named = [(source.image, "--image-field"), (source.key, "--key-field")]
    for name, option in [*named, *((name, "--caption-field") for name in source.captions)]:
        if name is not None and name not in columns:
            raise UserError(
                f"{source.url} has no column {name!r}; it has {', '.join(columns)}"
                f"{_no_header(columns, name) or _nearest([name], columns, option)}"
            )
    image = source.image or usual(IMAGE_FIELDS, "--image-field")
    captions = source.captions or (usual(CAPTION_FIELDS, "--caption-field"),)
    for name in (image, *captions, *([source.key] if source.key else [])):
        if columns.count(name) > 1:
            raise UserError(f"{source.url} has {columns.count(name)} columns {name!r}: call them differently")
    return image, captions, source.key


def _nearest(names: Sequence[str], columns: Sequence[str], option: str) -> str:
    folded = {column.strip().strip('"').lower(): column for column in columns}
    for name in names:
        if near := difflib.get_close_matches(name.lower(), folded, 1, 0.75):
            column = folded[near[0]]
            return (
                f". Is it {option} {column!r}?" if column != column.strip() else f". Is it {option} {column}?"
            )
    return ""


def _no_header(columns: Sequence[str], name: str) -> str:
    if any(column.lower().endswith(tuple(f".{ending}" for ending in IMAGE)) for column in columns):
        return f". Its first line looks like a row: put one with the columns' names before it ({name}, ...)"
    return ""


def text_of_cell(value: Any) -> str:
    """A path or a key as text, whatever type its column has; "" for nothing."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else str(value)
