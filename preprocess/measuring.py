"""The commands of macco-prep that hold a store against the truth, or against what others found."""

from pathlib import Path
from typing import Annotated

import typer

from macco.preprocess.config import DEFAULT_THRESHOLD
from macco.preprocess.store_commands import Boxes, StorePath, Threshold, show


def score(
    path: StorePath,
    truth: Annotated[
        str, typer.Option(help="Folder with concepts/*.parquet and boxes/*.parquet, as `demo` writes.")
    ],
    threshold: Threshold = DEFAULT_THRESHOLD,
    iou: Annotated[float, typer.Option(min=0, max=1, help="Overlap from which a box is right.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    detector: Boxes = None,
) -> None:
    """Compare a store with known truth: spans by (kind, start, end), boxes by overlap."""
    from macco.pipeline.store import Store
    from macco.preprocess.look.score import score as compare

    store = Store.open(path).choose_boxes(detector, looking=True)
    result = compare(store, truth, threshold, iou)
    rows = {
        name: {key: round(getattr(value, key), 4) for key in ("precision", "recall", "f1")}
        | {"of": value.true}
        for name, value in result.items()
    }
    show(rows, as_json)
    store.require_whole()


def compare(
    path: StorePath,
    tsv: Annotated[Path, typer.Argument(metavar="TSV", help="A MACCO training TSV, such as the authors'.")],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Boxes of the store below this score do not count.")
    ] = DEFAULT_THRESHOLD,
    iou: Annotated[float, typer.Option(min=0, max=1, help="Overlap from which two boxes are one.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    detector: Boxes = None,
) -> None:
    """Compare own annotations with a MACCO TSV's on the captions of both: equal spans, boxes that meet, by kind."""
    from macco.pipeline.store import Store
    from macco.preprocess.look.compare import as_rows
    from macco.preprocess.look.compare import compare as beside

    store = Store.open(path).choose_boxes(detector, looking=True)
    show(as_rows(beside(store, tsv, threshold, iou)), as_json)
    store.require_whole()
