"""macco-prep: the commands of stage 1. Each imports what it needs when it runs, so that --help is quick."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from macco.pipeline import console
from macco.pipeline.cores import cores
from macco.pipeline.errors import UserError
from macco.preprocess.bench import bench
from macco.preprocess.checking_graphs import import_graphs
from macco.preprocess.config import DEFAULT_THRESHOLD, Compute, ExtractConfig, Parsing, RunConfig
from macco.preprocess.copy_commands import cache, compact, export
from macco.preprocess.options import given_options, with_options
from macco.preprocess.regrounding import refuse_others, reground_store
from macco.preprocess.store_commands import (
    Out,
    StorePath,
    compare,
    report,
    score,
    serve,
    show,
    sql,
    stats,
    status,
    verify,
    view,
)

if TYPE_CHECKING:
    from macco.pipeline.store import Store
    from macco.preprocess.extraction.shard import Job

app = console.app("Image-caption shards in, a concept store out; then SQL over it.")


@app.command()
@with_options
def extract(
    context: typer.Context,
    out: Out,
    shards: Annotated[
        list[str] | None,
        typer.Option(help="Shards: braces, globs, URLs, e.g. 'cc3m/{00000..00331}.tar'. May be repeated."),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(help="A corpus described in YAML: a file, or the name of one in data_manifests/."),
    ] = None,
    root: Annotated[str | None, typer.Option(help="Where the manifest's corpus lies.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the corpus in ids. Default: the folder's, or the manifest's.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="auto (by content), webdataset (img2dataset too), table (TSV, CSV), csv (quoted, whatever the "
            "separator), parquet, coco, karpathy, json, jsonl or folder (images with .txt beside them)."
        ),
    ] = "auto",
    caption_field: Annotated[
        list[str] | None,
        typer.Option(help="JSON key (or txt) or column with the caption(s). May be repeated."),
    ] = None,
    image_field: Annotated[str | None, typer.Option(help="Column that holds image paths or bytes.")] = None,
    key_field: Annotated[str | None, typer.Option(help="Column that names the image.")] = None,
    image_root: Annotated[str | None, typer.Option(help="Folder that image paths start from.")] = None,
    rows_per_shard: Annotated[
        int, typer.Option(help="Images in one shard of a table, COCO JSON or Parquet.")
    ] = 1000,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Do the shards of files again that were changed, moved or are read otherwise than before.",
        ),
    ] = False,
    graphs: Annotated[
        str | None,
        typer.Option(help="Scene graphs made elsewhere, a JSON object a line: --parser graphs:FILE."),
    ] = None,
    reground: Annotated[
        bool,
        typer.Option(
            "--reground",
            help="Find boxes of another --detector, or --box-threshold, for what the store holds, beside its own.",
        ),
    ] = False,
    as_: Annotated[
        str | None,
        typer.Option("--as", help="What --reground calls these. Default: the detector's last name."),
    ] = None,
    *,
    config: ExtractConfig,
    run: RunConfig,
) -> None:
    """Extract concepts and boxes from image-caption shards into a store.

    The same command goes on where a killed one stopped, and takes up what files have grown by. Exit code 1 if a
    shard was given up, or no sample is usable; 2 if nothing further can succeed; 130 Ctrl-C, 143 SIGTERM.

    Examples:

      macco-prep extract --shards 'cc3m/{00000..00331}.tar' --out store
      macco-prep extract --shards train.tsv --image-root images --out store
      macco-prep extract --manifest coco2017 --root /data/coco --out s3://bucket/store
      macco-prep extract ... --detector groundingdino:swinb --dtype bf16 --ray-address auto
      macco-prep extract --reground --out store --detector transformers:google/owlv2-base-patch16-ensemble --as owlv2
    """
    from macco.pipeline.store import Store
    from macco.preprocess.extraction.shard import Job
    from macco.preprocess.sources import plan, plan_manifest

    given = given_options(context)
    if reground:
        refuse_others(given)
        reground_store(out, as_, config, run)
        return
    if graphs is not None:
        config = config.with_graphs(graphs, asked="parser" in given)
    if as_ is not None:
        raise UserError("--as names the boxes of --reground, which is not given")
    if (shards is None) == (manifest is None):
        raise UserError("say what to extract: either --shards 'PATTERN' or --manifest FILE")
    run.check()
    config.check()
    if manifest is not None:
        todo = plan_manifest(manifest, root, dataset=dataset, rows_per_shard=rows_per_shard)
    else:
        todo = plan(
            shards or [], dataset=dataset, format=format, caption_field=caption_field, image_field=image_field,
            key_field=key_field, image_root=image_root, rows_per_shard=rows_per_shard,
        )  # fmt: skip
    store = Store.create(out, config.settings())
    _extract(store, [Job(shard) for shard in todo], config, run, replace=replace)


def _extract(
    store: "Store", todo: "list[Job]", config: ExtractConfig, run: RunConfig, *, replace: bool = False
) -> None:
    """Run, say what was done, and end with 1 if anything was given up."""
    from macco.pipeline.coverage import few_boxes
    from macco.preprocess.detectors.detector import ASKED
    from macco.preprocess.extraction.run import extract_shards
    from macco.preprocess.look.status import counts

    signal.signal(signal.SIGTERM, console.interrupt)
    with closing(store):
        summary = extract_shards(store, todo, config, run, replace=replace)
    total = sum(summary.samples.values())
    bad = {status: count for status, count in sorted(summary.samples.items()) if status != "ok"}
    rate = f", {total / summary.seconds:.0f} samples/s" if total else ""
    print(
        f"{summary.committed} shards extracted, {summary.skipped} were there, {len(summary.failed)} failed; "
        f"{total} samples in {summary.seconds:.0f} s{rate}; failed samples: {bad or 'none'}"
    )
    if summary.committed and (
        told := {what: n for what, n in counts(store, store.commits()).items() if what != ASKED}
    ):
        print(
            "in the whole store: " + ", ".join(f"{n:,} {what}" for what, n in told.items()), file=sys.stderr
        )
    if summary.committed and (line := few_boxes(store, DEFAULT_THRESHOLD, extracted=True)):
        print(line, file=sys.stderr)
    for shard, why in sorted(summary.failed.items()):
        print(f"failed: {shard}: {why}", file=sys.stderr)
    if summary.failed:
        if summary.failed.keys() <= store.failed():
            print(f"try them again with: macco-prep retry {store.url}", file=sys.stderr)
        else:
            print("what they were to replace is still there; give the same command again", file=sys.stderr)
    nothing = total and not summary.samples.get("ok")
    if nothing:
        print(
            f"no sample is usable; why: macco-prep sql {store.url} 'SELECT status, error FROM samples'",
            file=sys.stderr,
        )
    if summary.failed or nothing:
        raise typer.Exit(1)


@app.command()
@with_options
def retry(
    path: StorePath,
    samples: Annotated[
        bool, typer.Option("--samples", help="Also redo failed samples of committed shards.")
    ] = False,
    detector: Annotated[
        str | None,
        typer.Option(
            help="The store's own, again: needed where it names a configuration, which is a program."
        ),
    ] = None,
    *,
    compute: Compute,
    run: RunConfig,
) -> None:
    """Try again what failed: the shards that were given up, with --samples failed samples too.

    Examples:

      macco-prep retry store
      macco-prep retry store --samples --workers 0
    """
    from macco.pipeline.store import Store
    from macco.preprocess.extraction.retry import failed_samples, failed_shards

    config = ExtractConfig.from_settings(Store.open(path).description()["settings"], compute, detector)
    run.check()
    config.check()
    store = Store.create(path, config.settings())
    todo = failed_shards(store) + (failed_samples(store) if samples else [])
    _extract(store, todo, config, run)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the tars and their truth.")],
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many images (2000); of a benchmark: base scenes of each group (400).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Image i depends on the split, the seed and i alone.")] = 0,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Images per tar (1000).", show_default=False)
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, val or test; test holds pairs that train never shows.")
    ] = "train",
    benchmark: Annotated[
        bool,
        typer.Option(
            "--benchmark", help="Draw the benchmark `demo` of macco-train eval instead; val or test."
        ),
    ] = False,
) -> None:
    """Draw the demo corpus: scenes with captions in webdataset tars, true spans and boxes beside."""
    from macco.preprocess.demo import write_benchmark, write_corpus

    if benchmark:
        if shard_size is not None:
            raise UserError("--shard-size is of tars, and --benchmark writes none: leave it out")
        write_benchmark(folder, images=images or 400, seed=seed, split=split)
    else:
        write_corpus(folder, images=images or 2000, seed=seed, shard_size=shard_size or 1000, split=split)


@app.command()
@with_options
def parse(
    caption: Annotated[
        list[str] | None, typer.Argument(help="Captions; none: one a line from standard input.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per caption and line.")] = False,
    *,
    parsing: Parsing,
) -> None:
    """Print the scene graph of captions, aligned under their words."""
    from macco.preprocess.graph.parse import parse_lines

    for text in parse_lines(
        caption or sys.stdin.buffer, parser=parsing.parser, rules=parsing.rules, as_json=as_json
    ):
        print(text, flush=True)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="TSV", help="A MACCO training TSV.")],
    out: Out,
    image_root: Annotated[str, typer.Option(help="Folder that its `filepath` column starts from.")] = ".",
    dataset: Annotated[
        str | None, typer.Option(help="Name of the corpus in ids. Default: the file's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one per core.")] = None,
    decode: Annotated[
        bool,
        typer.Option(
            "--decode",
            help="Decode every image, not only its header: finds damage inside, and keeps hashes for audits.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Do the shards again whose rows were changed, or whose images could not be read.",
        ),
    ] = False,
) -> None:
    """Make a store of the MACCO authors' training TSV. The same command goes on where a killed one stopped.

    Rows of one image file are captions of one image.
    """
    from macco.preprocess.exchange.importing import import_tsv

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    statuses = import_tsv(path, out, image_root, dataset, workers or cores(), decode=decode, replace=replace)
    print(f"new rows by status: {statuses}")


@app.command()
def models(
    convert: Annotated[
        Path | None,
        typer.Option(help="Official GroundingDINO weights (.pth) to convert for the transformers backend."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the converted checkpoint.")] = None,
) -> None:
    """List parsers and detectors, and how to get those that are not here; or convert official weights."""
    if convert is None:
        from macco.preprocess.detectors.catalogue import list_models

        show(list_models(), False)
        return
    if out is None:
        raise UserError("--convert needs --out DIR")
    from macco.preprocess.detectors.convert import convert_checkpoint

    convert_checkpoint(convert, out)


app.command("import-graphs")(import_graphs)
for _command in (status, verify, stats, report, sql, score, compare, view, serve, cache, compact, export):
    app.command()(_command)
app.command()(bench)


def main() -> None:
    """Entry point of the console script macco-prep."""
    # spaCy's matrix products are small: more threads than one only get in each other's way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    console.run(app, "macco-prep")


if __name__ == "__main__":
    main()
