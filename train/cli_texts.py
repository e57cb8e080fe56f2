"""macco-train: the commands that write captions beside those of a store."""

from typing import Annotated

import typer

app = typer.Typer()  # its commands become macco-train's


@app.command()
def negatives(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A concept store; they are written into it.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same captions.")] = 0,
) -> None:
    """Make hard negative captions of a store's scene graphs, for method.negatives (NegCLIP, CE-CLIP)."""
    from macco.pipeline.store import Store
    from macco.train.data.negatives import write_negatives

    print(f"{write_negatives(Store.open(store), seed, _say)} negatives in {store}/negatives")


@app.command()
def units(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A concept store; they are written into it.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same foils.")] = 0,
) -> None:
    """Make the units of a store's captions, entities and relations, with foils of their own, for CS-CLIP."""
    from macco.pipeline.store import Store
    from macco.train.data.units import write_units

    print(f"{write_units(Store.open(store), seed, _say)} units and foils in {store}/units")


@app.command()
def import_texts(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A concept store; they are written into it.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; a URL will do.")],
) -> None:
    """Take in foils and captions made elsewhere, by sample_id, in place of those that the store has.

    A line: {"sample_id": "coco/00000/000000000/0", "negatives": {"swap_object": "..."}, "units": [{"kind": "entity",
    "text": "a red dog", "foils": ["a blue dog"]}], "paraphrases": ["..."]}; each of the three may be left out.
    """
    from macco.pipeline.store import Store
    from macco.train.data.elsewhere import import_texts

    for name, count in import_texts(Store.open(store), file, _say).items():
        print(f"{count} rows in {store}/{name}")


def _say(line: str) -> None:
    print(line, flush=True)
