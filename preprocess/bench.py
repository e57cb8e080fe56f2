"""`macco-prep bench`: how fast this machine extracts, measured on a sample, and what a corpus takes by it."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from macco.preprocess.config import ExtractConfig
from macco.preprocess.options import with_options
from macco.preprocess.store_commands import show


@with_options
def bench(
    shards: Annotated[
        list[str] | None,
        typer.Option(
            help="Files of yours to take a sample of, as extract takes them. Default: drawn scenes."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="As extract has it.")] = "auto",
    image_root: Annotated[str | None, typer.Option(help="Folder that image paths start from.")] = None,
    images: Annotated[int, typer.Option(min=8, help="In the sample: the first of the first shard.")] = 64,
    pairs: Annotated[int, typer.Option(min=1, help="Captions of the corpus to plan for.")] = 1_000_000,
    workers: Annotated[
        int, typer.Option(min=1, help="Grounding workers to plan for, each as fast as this one: GPUs.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    *,
    config: ExtractConfig,
) -> None:
    """Measure extraction on this machine with one worker; print the hours and the bytes of a corpus.

    Examples:

      macco-prep bench --shards 'cc3m/00000.tar' --detector groundingdino:swint --pairs 2900000 --workers 8
      macco-prep bench --pairs 590000
    """
    from macco.preprocess.demo import write_corpus
    from macco.preprocess.look.bench import measure
    from macco.preprocess.sources import plan

    config.check()
    with tempfile.TemporaryDirectory() as name:
        if shards is None:
            write_corpus(Path(name, "demo"), images=images, seed=0)
        given = shards or [f"{name}/demo/*.tar"]
        first = plan(given, format=format, image_root=image_root)[0]
        found = measure(first, config, f"{name}/store", images, pairs, workers)
        if shards is None:
            found["sample"]["of"] = "drawn scenes"
        show(found, as_json)
