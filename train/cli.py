"""macco-train: the commands of stage 2. Each imports what it needs when it runs, so that --help is quick."""

import sys
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from macco.pipeline import console
from macco.pipeline.errors import UserError
from macco.train.cli_evaluation import app as evaluation
from macco.train.cli_texts import app as texts
from macco.train.study.command import app as studies
from macco.train.study.reproduce.command import app as reproduction

app = console.app("A concept store in, a fine-tuned CLIP out; then its evaluation and export.")

Presets = Annotated[
    list[str] | None,
    typer.Option("--preset", help="A preset by name; may be repeated, the later winning. See: presets."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML whose keys win over the presets'.")]
Assignments = Annotated[
    list[str] | None, typer.Argument(metavar="key=value ...", help="E.g. method.mlm=0; wins over all else.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Format = Annotated[str, typer.Option(help="open_clip, or hf (transformers' CLIPModel).")]
OutFolder = Annotated[Path, typer.Option("--out", help="The folder to write.")]


@app.command()
def run(
    assignments: Assignments = None,
    store: Annotated[str | None, typer.Option(help="The concept store to train on.")] = None,
    preset: Presets = None,
    config: ConfigFile = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="SQL over the columns of samples, concepts, boxes: \"score >= 0.4 AND kind <> 'object'\"."
        ),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Images to leave out: Parquet that `audit --out` wrote.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; one that was begun goes on.")] = Path(
        "run"
    ),
) -> None:
    """Train. The same command goes on where a stopped one ended; under torchrun it takes many GPUs.

    Examples:

      macco-train run --store store --preset paper-vitb32 --out runs/b32
      macco-train run --store store --preset paper-vitb32 --where "score >= 0.4" method.mim=0 --out runs/no-mim
      macco-train run --store store --exclude leaked.parquet validation.benchmarks=sugarcrepe --out runs/clean
      torchrun --nproc-per-node 8 -m macco.train run --store store --preset paper-vitl14 --out runs/l14
    """
    from macco.train.distributed.processes import asked_to_stop
    from macco.train.loop.run import train
    from macco.train.runs import checkpoint
    from macco.train.runs.weights import CONFIG

    begun = out / CONFIG if checkpoint.path(out, checkpoint.LATEST).is_file() else None
    resolved = _resolved(preset, config, assignments, store, where, begun, exclude)
    with asked_to_stop() as stop:
        complete = train(resolved, out, stop, _say)
    if not complete:
        print(f"stopped and saved; to go on: macco-train run --out {out}", file=sys.stderr)
        sys.exit(stop.exit_code)
    _finish(out)


def _finish(out: Path) -> None:
    """What a complete run gets beside its checkpoint: the model, and the report. One process writes them."""
    import os

    if int(os.environ.get("RANK", "0")) == 0:
        from macco.train.results.product import export_run
        from macco.train.results.report import write_report

        export_run(out, out / "model")
        write_report(out)
        print(f"the model is in {out / 'model'}, the report in {out / 'report.html'}")


def _resolved(
    presets: list[str] | None,
    file: Path | None,
    assignments: list[str] | None,
    store: str | None,
    where: str | None,
    begun: Path | None,
    exclude: str | None = None,
) -> Any:
    from macco.train import layers as settings

    layers = [settings.read_saved(begun)] if begun else []
    layers += [settings.preset(name) for name in presets or []]
    layers += [settings.read(file)] if file else []
    data = {
        name: value
        for name, value in (("store", store), ("where", where), ("exclude", exclude))
        if value is not None
    }
    given = settings.parse(assignments or [])
    for name in data.keys() & given.get("data", {}).keys():
        if data[name] != given["data"][name]:
            raise UserError(
                f"--{name} is {data[name]!r} and data.{name} is {given['data'][name]!r}: give one"
            )
    config = settings.resolve(*layers, given, {"data": data})
    settings.require_read(config, given)
    if given.get("model", {}).get("pretrained"):
        from macco.train.clip.load import has_weights

        if has_weights(config.model.name):
            raise UserError(f"{config.model.name} comes with weights of its own: leave model.pretrained out")
    return config


@app.command()
def report(path: RunPath) -> None:
    """Write RUN/report.html anew: curves, and a few reconstructions to look at.

    Example:

      macco-train report runs/b32
    """
    from macco.train.results.report import write_report

    write_report(path)
    print(path / "report.html")


@app.command()
def serve(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUNS... key=value...",
            help="Folders of runs, and of evaluations; settings that samples are shown under.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="The store that samples are shown of, and rebuilt. Default: the first run's."),
    ] = None,
    preset: Presets = None,
    host: Annotated[
        str, typer.Option(help="Where to listen. Anywhere but on this machine asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    token: Annotated[
        str | None, typer.Option(envvar="MACCO_TOKEN", help="Ask for this token on this machine, too.")
    ] = None,
) -> None:
    """Look at runs in the browser: curves, reconstructions, evaluations; and at a store as training sees it.

    Without a run samples are shown as the presets and settings given would see them; by default as the paper's do.

    Examples:

      macco-train serve --store store
      macco-train serve --store store --preset negclip-macco masks.same=true
      macco-train serve runs/a runs/b
      macco-train serve runs/a report-a report-b --store store
    """
    from macco.pipeline.page.gallery import Gallery
    from macco.pipeline.page.server import serve as listen
    from macco.pipeline.store import Store
    from macco.train.results.look import Look
    from macco.train.results.serve import runs_app

    look = Look.of(what or [], preset or [], store)
    with (
        closing(Gallery(Store.open(look.url).choose_boxes(look.detector)))
        if look.url
        else nullcontext() as gallery
    ):
        if gallery is not None:
            gallery.start()
        pages = partial(runs_app, look, gallery)
        listen(pages, host=host, port=port, token=token, gallery=gallery)


@app.command()
def export(
    path: RunPath,
    out: OutFolder,
    format: Format = "open_clip",
    weights: Annotated[str, typer.Option(help="latest, best or ema.")] = "",
    interpolate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the trained weights, the rest the start's (WiSE-FT)."),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write a model card, OUT/README.md, too; nothing is uploaded.")
    ] = False,
    figures: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that eval wrote, for the card. May be repeated. Default: those in RUN."),
    ] = None,
) -> None:
    """Write the plain CLIP of a run. Default weights: ema where the run keeps one, else latest.

    Examples:

      macco-train export runs/b32 --out clip
      macco-train export runs/b32 --out clip-hf --format hf --weights best --interpolate 0.5
      macco-train export runs/b32 --out clip --card --figures report
    """
    from macco.train.results.card import export_with_card
    from macco.train.results.product import export_run

    if figures and not card:
        raise UserError("--figures are for the card: give --card, too")
    if card:
        export_with_card(path, out, format, weights, interpolate, figures or [], _say)
    else:
        export_run(path, out, format, weights, interpolate)
    print(out)
    if not card and (out / "README.md").is_file():
        print(f"{out / 'README.md'} is of an earlier export: give --card, or remove it", file=sys.stderr)


@app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="Of MACCO's public code, or of any ViT CLIP: .pt or .safetensors."
        ),
    ],
    out: OutFolder,
    activation: Annotated[
        str | None,
        typer.Option(
            help="quick_gelu (OpenAI's and the paper's models) or gelu. Default: what an open_clip_config.json beside "
            "the file says; without one quick_gelu."
        ),
    ] = None,
    format: Format = "open_clip",
) -> None:
    """Make a plain CLIP folder of a checkpoint; `run model.name=FOLDER` starts from it."""
    from macco.train.clip.convert import open_checkpoint
    from macco.train.clip.load import architecture, configured, load_clip
    from macco.train.clip.write import write_clip

    if activation not in (None, "quick_gelu", "gelu"):
        raise UserError(f"--activation is {activation!r}: choose quick_gelu or gelu")
    if path.is_file() and configured(path):
        loaded = load_clip(str(path), activation=activation)
        write_clip(loaded.model, out, format, architecture(str(path.parent)), loaded.tokenizer)
    else:
        clip, config = open_checkpoint(path, quick_gelu=activation != "gelu")
        write_clip(clip, out, format, config)
    print(out)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one as it resolves, with all keys.")] = None,
) -> None:
    """List the presets, or print one whole."""
    from macco.train import layers

    if name is not None:
        print(layers.dump(layers.resolve(layers.preset(name))), end="")
        return
    for each in layers.preset_names():
        comment = (layers.PRESETS / f"{each}.yaml").read_text().splitlines()[0].removeprefix("# ")
        print(f"{each:28} {comment}")


@app.command()
def bench(
    assignments: Assignments = None,
    preset: Presets = None,
    config: ConfigFile = None,
    store: Annotated[str | None, typer.Option(help="Measure the loader too, on this store.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps, after two that warm up.")] = 10,
    pairs: Annotated[
        int, typer.Option(min=0, help="Say how long training on so many pairs takes. 0: on the store's.")
    ] = 0,
) -> None:
    """Measure training speed on this machine: the step alone on random batches, and with a store the loader.

    What a run costs is reckoned from it: hours for the configuration's epochs.
    """
    from macco.train.results.bench import measure

    measure(_resolved(preset, config, assignments, store, None, None), steps, pairs, _say)


app.add_typer(studies)
app.add_typer(evaluation)
app.add_typer(texts)
app.add_typer(reproduction)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Entry point of the console script macco-train."""
    console.run(app, "macco-train")


if __name__ == "__main__":
    main()
