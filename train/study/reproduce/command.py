"""The command that reproduces the authors' tables. It imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from macco.pipeline.errors import UserError

app = typer.Typer()  # its command becomes macco-train's


@app.command()
def reproduce(
    road: Annotated[
        str,
        typer.Argument(
            metavar="ROAD",
            help="checkpoint (the authors' weights), tsv (their annotations), extract (own ones).",
        ),
    ],
    data: Annotated[Path, typer.Option(help="The authors' datasets/: TSV, coco/, ARO/, VALSE/, MACCO/, ...")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of all that is made; one that was begun goes on.")
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value ...", help="Settings of training, over the preset's."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List what is there, what is missing and how to get it, hours, disk."),
    ] = False,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint; may be repeated. Default: all in DATA/MACCO.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="released-vitb32, -vitb16, -vitl14, or paper-... without the code's slips.")
    ] = "released-vitb32",
    seeds: Annotated[str, typer.Option(help="With commas; the authors have four.")] = "0",
    corpus: Annotated[str, typer.Option(help="coco or cc3m.")] = "coco",
    detector: Annotated[
        str, typer.Option(help="Of the road extract: see macco-prep models.")
    ] = "groundingdino:swinb",
    parser: Annotated[
        str, typer.Option(help="Of the road extract: see macco-prep models.")
    ] = "en_core_web_trf",
    extract: Annotated[
        str, typer.Option(help='Further options of macco-prep extract: "--dtype bf16 --workers 8".')
    ] = "",
    tagger: Annotated[
        str, typer.Option(help="spaCy pipeline that tags the captions of ARO's order tests.")
    ] = "en_core_web_sm",
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Train without the images that are not there.")
    ] = False,
    device: Annotated[str, typer.Option(help="Of evaluation: auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images or captions encoded at once.")] = 256,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode images of benchmarks.")] = 4,
) -> None:
    """Reproduce the MACCO paper's tables from the authors' data. The same command goes on where a stopped one ended.

    Examples:

      macco-train reproduce checkpoint --data datasets --out again --dry-run
      macco-train reproduce checkpoint --data datasets --out again
      macco-train reproduce tsv --data datasets --out again-tsv --seeds 0,1,2,3
      macco-train reproduce extract --data datasets --out own --preset paper-vitb32 --extract "--dtype bf16"
    """
    import shlex

    from macco.pipeline.devices import choose_device
    from macco.train.distributed.processes import asked_to_stop
    from macco.train.layers import parse
    from macco.train.objectives.objective import Scoring
    from macco.train.study.reproduce.roads import Order, Road

    if corpus not in ("coco", "cc3m"):
        raise UserError(f"--corpus is {corpus!r}: choose coco or cc3m")
    try:
        numbers = tuple(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError as error:
        raise UserError(f"--seeds is {seeds!r}: numbers with commas between, e.g. 0,1,2,3") from error
    scoring = Scoring(device=str(choose_device(device)), batch_size=batch_size, workers=workers)
    order = Order(
        road=road, data=data, out=out, given=tuple(checkpoint or ()), corpus=corpus, preset=preset, seeds=numbers,
        overrides=parse(assignments or []), detector=detector, parser=parser, extract=tuple(shlex.split(extract)),
        tagger=tagger, incomplete=incomplete, scoring=scoring,
    )  # fmt: skip
    with asked_to_stop() as stop:
        chosen = Road(order, stop, lambda line: print(line, flush=True))
        if dry_run:
            print("\n".join([*(need.line() for need in chosen.needs()), *chosen.plan()]))
            return
        complete = chosen.run()
    if not complete:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(stop.exit_code)
    for line in chosen.failed:
        print(f"failed: {line}", file=sys.stderr)
    print(f"written: {out / 'table.md'}, {out / 'table.json'}, {out / 'table.sql'}")
    if chosen.failed:
        raise typer.Exit(1)
