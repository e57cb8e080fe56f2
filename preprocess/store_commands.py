"""The commands of macco-prep that ask a store something."""

import json
import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from macco.preprocess.config import DEFAULT_THRESHOLD

StorePath = Annotated[str, typer.Argument(metavar="STORE", help="A concept store.")]
Threshold = Annotated[float, typer.Option(min=0, max=1, help="Boxes that score less are left out.")]
Boxes = Annotated[
    str | None,
    typer.Option(
        "--detector", help="Whose boxes, where the store has those of several (extract --reground)."
    ),
]
Out = Annotated[str, typer.Option("--out", help="The store: a folder or any fsspec URL.")]


def status(
    path: StorePath,
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Count the captions that this model of open_clip cuts, too: ViT-B-32, or local-dir:FOLDER.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what is committed, what failed and why, and the settings."""
    from macco.pipeline.store import Store
    from macco.preprocess.look.status import status as overview

    store = Store.open(path)
    found = overview(store)
    if tokenizer:
        from macco.preprocess.look.lengths import cuts

        found["tokens"] = cuts(store, tokenizer)
    show(found, as_json)
    store.require_whole(all_boxes=True)


def verify(
    path: StorePath,
    drop: Annotated[
        bool,
        typer.Option(
            "--drop", help="Take the shards that are not whole out of the store; extract makes them anew."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Read every row, and hold it against the records: what is missing, cut short, copied, or of no shard."""
    from macco.pipeline.store import Store
    from macco.preprocess.look.verify import sets_not_whole, take_out
    from macco.preprocess.look.verify import verify as check

    store = Store.open(path)
    found = check(store)
    show(found, as_json)
    if found["not whole"] or sets_not_whole(found):
        if not drop:
            raise typer.Exit(1)
        print(take_out(store, found), file=sys.stderr)


def stats(
    path: StorePath,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Box score from which an object counts as grounded.")
    ] = DEFAULT_THRESHOLD,
    top: Annotated[int, typer.Option(min=1, help="How many of the commonest lemmas.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    detector: Boxes = None,
) -> None:
    """Count concepts and boxes."""
    from macco.pipeline.coverage import few_boxes
    from macco.pipeline.store import Store
    from macco.preprocess.look.stats import stats as overview

    store = Store.open(path).choose_boxes(detector, looking=True)
    show(overview(store, threshold=threshold, top=top), as_json)
    if line := few_boxes(store, threshold):
        print(line, file=sys.stderr)
    store.require_whole()


def sql(
    path: StorePath,
    query: Annotated[
        str | None,
        typer.Argument(
            help="One question; without it a shell opens, or statements are read from standard input."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="table, csv, json (one object a line) or parquet.")] = "table",
    out: Annotated[str | None, typer.Option(help="File to write instead of the terminal.")] = None,
    write_views: Annotated[
        bool,
        typer.Option(
            "--write-views",
            help="Write STORE/views.sql anew, for the duckdb command: a store that has moved.",
        ),
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Run one SELECT that reaches no file outside the store: SQL of others."
        ),
    ] = False,
    detector: Boxes = None,
) -> None:
    """Ask SQL, one question or in a shell: views samples, concepts, boxes, triplets, images, ... (docs/sql.md).

    `boxes` are the store's own, or those of --detector; `all_boxes` are those of every detector, by name.

    It is DuckDB as you run it: it may read and write your files. For SQL that is not yours there is --read-only.

    Examples:

      macco-prep sql store "SELECT status, count(*) FROM samples GROUP BY 1"
      macco-prep sql store "SELECT caption FROM samples JOIN concepts USING (sample_id)
                            WHERE lemma = 'umbrella'" --format csv
      macco-prep sql store "SELECT * FROM concept_boxes WHERE score > 0.35" --format parquet --out b.parquet
      macco-prep sql store
      macco-prep sql store < questions.sql
    """
    from macco.pipeline.store import Store
    from macco.preprocess.look.shell import read, shell
    from macco.preprocess.look.sql import query as ask

    store = Store.open(path)
    if detector is not None:
        store.choose_boxes(detector, looking=True)
    if write_views:
        store.write_views()
    if query is not None:
        ask(store, query, format, out, read_only=read_only)
    elif not write_views and out is None and sys.stdin.isatty():
        shell(store, format, read_only=read_only)
    elif not write_views:
        query = sys.stdin.read()
        read(store, query, format, out, read_only=read_only)
    store.require_whole(all_boxes="all_boxes" in (query or "all_boxes").lower())


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


def view(
    path: StorePath,
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")],
    where: Annotated[
        str,
        typer.Option(help="SQL condition on samples, or on concepts or boxes of theirs: \"lemma = 'dog'\"."),
    ] = "true",
    limit: Annotated[int, typer.Option(min=1, help="At most so many images.")] = 24,
    threshold: Threshold = DEFAULT_THRESHOLD,
    detector: Boxes = None,
) -> None:
    """Write a page to look at: images with their boxes, captions with their concepts.

    Examples:

      macco-prep view store --out view.html
      macco-prep view store --out dogs.html --where "lemma = 'dog' AND score > 0.5" --limit 50
    """
    from macco.pipeline.store import Store
    from macco.preprocess.look.view import write_page

    store = Store.open(path).choose_boxes(detector, looking=True)
    count = write_page(store, out, where=where, limit=limit, threshold=threshold)
    print(f"{count} images in {out}")
    store.require_whole()


def report(
    path: StorePath,
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")] = Path("report.html"),
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Boxes from this score on count.")
    ] = DEFAULT_THRESHOLD,
    top: Annotated[int, typer.Option(min=1, help="How many of the commonest.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON, and write no page.")
    ] = False,
    detector: Boxes = None,
) -> None:
    """Write a page about a store: counts, failures, commonest concepts, scores, boxes, masking, seconds.

    Examples:

      macco-prep report store --out report.html
      macco-prep report store --json
      macco-prep report store --detector owlv2
    """
    from macco.pipeline.folder import put_file
    from macco.pipeline.store import Store
    from macco.preprocess.look.report import report as figures

    store = Store.open(path).choose_boxes(detector, looking=True)
    found = figures(store, threshold=threshold, top=top)
    if as_json:
        show(found, True)
    else:
        from macco.preprocess.look.report_page import report_page

        put_file(out, report_page(found).encode())
        print(out)
    store.require_whole()


def serve(
    path: StorePath,
    host: Annotated[
        str, typer.Option(help="Where to listen. Anywhere but on this machine asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    token: Annotated[
        str | None,
        typer.Option(envvar="MACCO_TOKEN", help="Ask for this token on this machine, too.", show_envvar=True),
    ] = None,
    threshold: Threshold = DEFAULT_THRESHOLD,
    detector: Boxes = None,
) -> None:
    """Look at a store in the browser: filter, count, sort, tag. Nothing but tags is written.

    What training would see of a sample (crop, masked words and patches) is in `macco-train serve --store STORE`.

    Examples:

      macco-prep serve store
      ssh -L 8765:localhost:8765 cluster macco-prep serve /data/store
    """
    from macco.pipeline.page.app import store_app
    from macco.pipeline.page.gallery import Gallery
    from macco.pipeline.page.server import serve as listen
    from macco.pipeline.store import Store

    store = Store.open(path).choose_boxes(detector, looking=True)
    with closing(Gallery(store)) as gallery:
        gallery.start()
        words = ["macco-train", "serve", "--store", gallery.store.url]
        about = {"training": shlex.join([*words, *([f"data.detector={detector}"] if detector else [])])}
        listen(
            lambda key: store_app(gallery, threshold=threshold, token=key, about=about),
            host=host, port=port, token=token, gallery=gallery,
        )  # fmt: skip
    store.require_whole()


def show(value: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=1, default=str))
        return
    import yaml

    print(yaml.safe_dump(json.loads(json.dumps(value, default=str)), sort_keys=False, width=120).rstrip())
