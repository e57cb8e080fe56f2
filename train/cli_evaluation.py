"""The commands of evaluation. Each imports what it needs when it runs, so that --help is quick."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from macco.pipeline.cores import cores
from macco.pipeline.errors import UserError

app = typer.Typer()  # its commands become macco-train's

Data = Annotated[Path, typer.Option("--data", help="Folder of all benchmark data, one folder each.")]
Paths = Annotated[
    list[str] | None,
    typer.Option("--path", metavar="NAME=DIR", help="Where one benchmark or image collection lies instead."),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        help="A name, all, classify:DATASET or probe:DATASET. May be repeated. Default: those whose data is there.",
    ),
]


@app.command(name="eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(help="An open_clip name, an exported folder, hf-hub:..., or a checkpoint file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.md, report.json and items.parquet.")],
    data: Data = Path("data"),
    path: Paths = None,
    benchmark: Names = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag, a file, or random.")
    ] = None,
    activation: Annotated[
        str, typer.Option(help="auto (as the model was trained), gelu, quick_gelu, or both of these.")
    ] = "auto",
    templates: Annotated[
        str, typer.Option(help="Prompts of zero-shot classification: openai or simple.")
    ] = "openai",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images or captions encoded at once.")] = 64,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that decode images; 0: this one. Default: one a core, at most 4."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights.")] = 0,
    store: Annotated[
        str | None,
        typer.Option(help="Concept store of the benchmarks' images, for a joint encoder that reads boxes."),
    ] = None,
) -> None:
    """Benchmark a model; exit code 1 if a benchmark was asked for by name, or is there, and could not be run.

    Examples:

      macco-train eval clip --benchmark sugarcrepe --data data --out report
      macco-train eval ViT-B-32 --pretrained openai --benchmark all --out report
      macco-train eval clip --benchmark demo --benchmark classify:demo --data data --out report
    """
    import torch

    from macco.pipeline.devices import choose_device
    from macco.train.clip.load import ACTIVATIONS, has_weights
    from macco.train.evaluation.classification import TEMPLATES
    from macco.train.evaluation.manifest import MissingDataError
    from macco.train.evaluation.registry import FeaturesNeededError, expand, run
    from macco.train.evaluation.report import write_report
    from macco.train.evaluation.run import NoImagesError
    from macco.train.objectives.objective import Scoring
    from macco.train.results.scorers import open_scorer

    if pretrained is None and not has_weights(model):
        raise UserError(f"{model} is an architecture without weights: give --pretrained TAG, FILE or random")
    if pretrained is not None and has_weights(model):
        raise UserError(f"{model} comes with weights of its own: leave --pretrained out")
    if activation not in ("auto", "both", *ACTIVATIONS):
        raise UserError(f"--activation is {activation!r}: choose auto, gelu, quick_gelu or both")
    if templates not in TEMPLATES:
        raise UserError(f"--templates is {templates!r}: choose {' or '.join(TEMPLATES)}")
    places, asked = _places(data, path), benchmark or ["all"]
    workers = min(4, cores()) if workers is None else workers
    names, named = expand(asked), "all" not in asked
    _folder(out)
    failed = none = False
    for chosen in [*ACTIVATIONS] if activation == "both" else [activation]:
        torch.manual_seed(seed)
        scoring = Scoring(
            device=str(choose_device(device, mps="auto")), batch_size=batch_size, workers=workers, store=store
        )
        scorer, clip = open_scorer(
            model,
            None if pretrained == "random" else pretrained,
            None if chosen == "auto" else chosen,
            scoring,
        )
        about = _about(model, pretrained, clip, scoring.device)
        outcomes, missing = [], []
        for name in names:
            try:
                outcomes.append(run(name, scorer, places, templates))
                if not _say(outcomes[-1].report):
                    failed = True
                    print(f"{name}: not one item could be used: see {out}", file=sys.stderr)
            except UserError as error:  # one benchmark's; the others are run all the same
                missing.append(str(error))
                none |= isinstance(error, NoImagesError)
                failed |= named or not isinstance(error, MissingDataError | FeaturesNeededError)
                print(f"not run: {error}", file=sys.stderr)
            if outcomes:  # after each, so that a stop leaves what was done
                write_report(out / chosen if activation == "both" else out, about, outcomes, missing)
        if not outcomes and none:
            raise typer.Exit(1)
        if not outcomes:
            raise UserError("no benchmark could be run: the lines above say why")
    if activation == "both":
        compare([out / chosen for chosen in ACTIVATIONS], out)
    print(f"written to {out}")
    if failed:
        raise typer.Exit(1)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="BASELINE RUN...", help="Folders that eval wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for compare.md and compare.json.")],
) -> None:
    """Compare runs with the first, item by item: differences, 95 % intervals, paired tests."""
    from macco.train.evaluation.compare import compare as compare_runs
    from macco.train.evaluation.compare import write_comparison
    from macco.train.evaluation.manifest import Places
    from macco.train.evaluation.registry import figures_of

    places = Places(Path("data"))
    rows = compare_runs(runs, lambda name: figures_of(name, places))
    write_comparison(rows, str(runs[0]), out)
    print(f"{len(rows)} figures compared: {out / 'compare.md'}")


@app.command()
def audit(
    store: Annotated[str, typer.Option("--store", help="A concept store, the training data.")],
    data: Data = Path("data"),
    path: Paths = None,
    benchmark: Names = None,
    distance: Annotated[
        int, typer.Option(min=0, max=7, help="Bits of 64 by which the hashes of one image may differ.")
    ] = 4,
    out: Annotated[Path | None, typer.Option(help="Parquet file for the matches, to leave them out.")] = None,
) -> None:
    """Say how many images of each benchmark a store holds, by file name and by perceptual hash."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from macco.pipeline.store import Store
    from macco.train.evaluation.audit import audit as find
    from macco.train.evaluation.audit import stored_images
    from macco.train.evaluation.manifest import MissingDataError
    from macco.train.evaluation.registry import expand, pictures_of

    places, names = _places(data, path), expand(benchmark or ["all"])
    connection = stored_images(Store.open(store))
    if out is not None:
        _folder(out.parent)
    found = []
    for name in names:
        try:
            pictures, absent = pictures_of(name, places)
            found.append(find(connection, name, pictures, distance))
            print(found[-1].line())
            for line in absent:
                print(f"not looked for: {line}", file=sys.stderr)
        except MissingDataError as error:
            print(f"not looked for: {error}", file=sys.stderr)
    if not found:
        raise UserError("no benchmark is there to look for: the lines above say what to download")
    if out is not None:
        pq.write_table(pa.concat_tables([one.matches for one in found]), out)
        print(f"matches: {out}")


@app.command(name="freeze-order")
def freeze_order(
    karpathy: Annotated[Path, typer.Argument(help="coco_karpathy_test.json or flickr30k_test.json.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the frozen shuffles.")],
    tagger: Annotated[
        str, typer.Option(help="A spaCy pipeline: its name, or its folder.")
    ] = "en_core_web_sm",
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffles.")] = 0,
) -> None:
    """Draw the shuffles of ARO's order tasks once, into a file that says what shaped them."""
    from macco.train.evaluation.benchmarks.order import freeze

    _folder(out.parent)
    print(f"{freeze(karpathy, out, tagger=tagger, seed=seed)} items: {out}")


def _places(data: Path, paths: list[str] | None) -> Any:
    from macco.train.evaluation.manifest import Places

    pairs = [entry.partition("=") for entry in paths or []]
    if bad := [name for name, equals, folder in pairs if not (name and equals and folder)]:
        raise UserError(f"--path {bad[0]} is not NAME=DIR")
    return Places(data, {name: Path(folder) for name, _, folder in pairs})


def _folder(path: Path) -> None:
    """Make a folder before the work whose results it is for."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from error


def _say(report: dict[str, Any]) -> int:
    """One line per benchmark while a long run goes on; returns how many items were used."""
    first = report["figures"][0]
    used, there = (sum(one[key] for one in report["counts"]) for key in ("used", "in_files"))
    value = "undefined" if first["percent"] is None else f"{first['percent']:.1f} %"
    print(f"{report['benchmark']}: {first['figure']} {value}, {used} of {there} items", flush=True)
    for note in report["notes"]:
        print(f"  {note}", file=sys.stderr)
    return int(used)


def _about(name: str, pretrained: str | None, model: Any, device: str) -> dict[str, Any]:
    from importlib.metadata import version

    from macco.train.clip.load import activation_of

    packages = {"macco": version("macco"), "torch": version("torch"), "open_clip": version("open_clip_torch")}
    return {
        "model": name,
        "pretrained": pretrained,
        "activation": activation_of(model),
        "device": device,
        "versions": packages,
    }
