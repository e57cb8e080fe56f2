"""`macco-prep import-graphs`: what an extraction would make of scene graphs that were made elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from macco.preprocess.store_commands import show


def import_graphs(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Scene graphs made elsewhere, a JSON object a line.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Try a file of scene graphs before an extraction: how many words of them their captions have, or have twice.

    Nothing is written: `extract --graphs FILE` takes them in, with the images. Exit code 1 if it holds no graph.

    Examples:

      macco-prep import-graphs graphs.jsonl
      macco-prep extract --shards 'cc3m/*.tar' --graphs graphs.jsonl --out store
    """
    from macco.preprocess.graph.graph_file import GRAPHS, NAMES_ALONE, survey

    found = survey(path)
    show(found, as_json)
    if not found["objects"] + found[NAMES_ALONE] or not found[GRAPHS]:
        raise typer.Exit(1)
