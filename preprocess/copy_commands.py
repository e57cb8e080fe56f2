"""The commands of macco-prep that copy a store into another form."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from macco.pipeline.cores import cores
from macco.pipeline.errors import UserError
from macco.preprocess.config import DEFAULT_THRESHOLD
from macco.preprocess.store_commands import Boxes, StorePath, Threshold


def compact(
    path: StorePath,
    out: Annotated[
        str | None, typer.Option("--out", help="Leave the store as it is, and make a new one here.")
    ] = None,
) -> None:
    """Put a store's rows into few large files, for quicker questions; every row stays as it is.

    Long extractions do so by themselves. A kill loses nothing: give the command again.
    """
    from macco.pipeline.store import Store
    from macco.preprocess.exchange.compact import compact as merge

    merge(Store.open(path), out)


def cache(
    path: StorePath,
    out: Annotated[str, typer.Option("--out", help="The cache: a folder or any fsspec URL.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the short side.")] = 256,
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 to 100.")] = 90,
    pixels: Annotated[
        bool,
        typer.Option("--pixels", help="No JPEGs: six times the bytes, nothing to decode (data.crop=device)."),
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one per core.")] = None,
) -> None:
    """Write resized copies of a store's images, so that training decodes few pixels (macco-train: data.cache)."""
    from macco.preprocess.exchange.cache import write_cache

    count = workers or cores()
    write_cache(path, out, short_side=short_side, quality=quality, pixels=pixels, workers=count)


def export(
    path: StorePath,
    out: Annotated[
        Path, typer.Option("--out", help="File (coco, macco-tsv) or folder (fiftyone, hf) to write.")
    ],
    format: Annotated[str, typer.Option(help="coco, fiftyone, macco-tsv or hf.")] = "coco",
    threshold: Threshold = DEFAULT_THRESHOLD,
    detector: Boxes = None,
) -> None:
    """Write a store for others: COCO detection JSON, a FiftyOne folder, the MACCO authors' TSV, a Hugging Face dataset.

    Examples:

      macco-prep export store --out boxes.json
      macco-prep export store --out dataset --format fiftyone --threshold 0.5
      macco-prep export store --out concepts --format hf --threshold 0.3
    """
    from macco.pipeline.folder import is_stream
    from macco.pipeline.store import Store
    from macco.preprocess.exchange.formats import FORMATS, writer

    if format not in FORMATS:
        raise UserError(f"--format is {format!r}: choose one of {', '.join(FORMATS)}")
    store = Store.open(path).choose_boxes(detector)
    store.require_whole()
    rows = writer(format)(store, out, threshold, lambda line: print(line, file=sys.stderr))
    print(f"{rows} rows in {out}", file=sys.stderr if is_stream(out) else sys.stdout)
