"""The command that runs a study. It imports what it needs when it runs, so that --help is quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from macco.pipeline.cores import cores
from macco.pipeline.errors import UserError

app = typer.Typer()  # its command becomes macco-train's


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study that ships with macco, or a YAML file.")
    ],
    store: Annotated[str, typer.Option(help="The concept store to train on.")],
    test: Annotated[Path, typer.Option(help="Folder of the benchmarks that are reported.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="key=value ...", help="E.g. method.mlm=0; of all runs.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks that hyper-parameters are chosen on.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=0, help="Runs at once. Default: the cores, on a GPU 1; 0: one, in this process."),
    ] = None,
    arms: Annotated[str, typer.Option(help="Only these, with commas. Default: all.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these, with commas. Default: all.")] = "",
    tune: Annotated[
        bool, typer.Option(help="Choose hyper-parameters on --val; else: the study's values.")
    ] = True,
    keep: Annotated[bool, typer.Option(help="Keep the checkpoints of the runs.")] = False,
) -> None:
    """Run a study: tune, train, evaluate, tabulate. The same command goes on where a stopped one ended.

    Examples:

      macco-train study demo --store store --val val --test test --out study
      macco-train study demo --store store --test test --out study --no-tune --arms macco --seeds 0,1
    """
    from macco.pipeline.devices import choose_device
    from macco.train.distributed.processes import asked_to_stop
    from macco.train.layers import parse, resolve
    from macco.train.study.plan import load_plan
    from macco.train.study.study import Order, Study

    if tune and val is None:
        raise UserError("hyper-parameters are chosen on --val FOLDER: give it, or --no-tune")
    plan, overrides = load_plan(name), parse([*(assignments or []), f"data.store={store}"])
    if jobs is None:
        device = choose_device(resolve(plan.base, overrides).device)
        jobs = 1 if device.type == "cuda" else cores()
    try:
        numbers = [int(seed) for seed in seeds.split(",") if seed]
    except ValueError as error:
        raise UserError(f"--seeds is {seeds!r}: numbers with commas between, e.g. 0,1") from error
    order = Order(
        out=out, test=test, val=val or test, overrides=overrides, arms=[arm for arm in arms.split(",") if arm],
        seeds=numbers, processes=jobs, tune=tune, keep=keep,
    )  # fmt: skip
    with asked_to_stop() as stop:
        running = Study(plan, order, stop, lambda line: print(line, flush=True))
        complete = running.run()
    if not complete:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(stop.exit_code)
    for failed, reason in running.failed.items():
        print(f"failed: {failed}: {reason}", file=sys.stderr)
    print(f"written: {out / 'study.md'}, {out / 'study.svg'}, {out / 'study.json'}")
    if running.failed:
        raise typer.Exit(1)
