"""A model card beside an exported CLIP: what it is, what made it, how good it is, how it is loaded."""

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.published import fingerprint, licence, without_folders
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.train.config import TrainConfig, groups
from macco.train.data.detector import own_boxes
from macco.train.evaluation.report import number, table
from macco.train.layers import values
from macco.train.results.product import export_run
from macco.train.runs.weights import saved_config

Log = Callable[[str], None]
Report = dict[str, Any]
FILE: Final = "README.md"
LIBRARIES: Final = {"open_clip": "open_clip", "hf": "transformers"}
_MACHINE: Final = ("device", "log_every", "save_every", "tensorboard", "wandb")  # nothing comes of these

_LOADS: Final = {
    "open_clip": """import open_clip
import torch
from PIL import Image

place = "local-dir:{name}"  # or "hf-hub:OWNER/{name}"
model, _, preprocess = open_clip.create_model_and_transforms(place)
tokenizer = open_clip.get_tokenizer(place)
image = preprocess(Image.new("RGB", (320, 240), "red")).unsqueeze(0)
texts = tokenizer(["a red square", "a blue square"])
with torch.no_grad():
    images, captions = model.eval().encode_image(image, normalize=True), model.encode_text(texts, normalize=True)
print(images @ captions.T)
""",
    "hf": """import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

place = "{name}"  # or "OWNER/{name}"
model = CLIPModel.from_pretrained(place).eval()
images = AutoImageProcessor.from_pretrained(place)(Image.new("RGB", (320, 240), "red"), return_tensors="pt")
tokenizer, length = AutoTokenizer.from_pretrained(place), model.config.text_config.max_position_embeddings
texts = tokenizer(
    ["a red square", "a blue square"], padding=True, truncation=True, max_length=length, return_tensors="pt"
)
with torch.no_grad():
    out = model(input_ids=texts.input_ids, attention_mask=texts.attention_mask, pixel_values=images.pixel_values)
print(out.logits_per_image)
""",
}
_CARD: Final = """# {name}

A CLIP, fine-tuned by macco {version} with the objective `{objective}` from {start}, for images and captions of which
the composition matters: which attribute is whose, who does what to whom.

## How to load

```python
{load}```

## Data

{data}

## Objective

{trained}

<details><summary>All settings of the run</summary>

```yaml
{settings}```

</details>

## Figures

{figures}

## Licences of what went in

{licences}
"""


def export_with_card(
    run: Path,
    out: Path,
    format: str,
    weights: str,
    interpolate: float | None,
    figures: Sequence[Path],
    log: Log,
) -> None:
    """`export_run`, with OUT/README.md beside the plain CLIP that it writes.

    figures: folders that `eval` wrote; none: those that lie in the run's folder. Raises UserError, before anything is
    written, for a run whose product is another, and for figures of another model.
    """
    config = saved_config(run)
    if config.settings.product:
        raise UserError(
            f"--card is of a plain CLIP, and {run} makes none: its objective is {config.objective}"
        )
    as_trained = weights in ("", "ema" if config.ema else "latest") and interpolate in (
        None,
        config.interpolate,
    )
    reports = _reports(run, out, figures, as_trained=as_trained)
    export_run(run, out, format, weights, interpolate)
    name = out.resolve().name
    base = _base_model(config)
    header = {
        "license": "other",
        "library_name": LIBRARIES[format],
        "pipeline_tag": "zero-shot-image-classification",
        "tags": list(dict.fromkeys(["clip", "macco", config.objective, "compositionality"])),
        **({"base_model": base} if base else {}),
        **({"model-index": [{"name": name, "results": list(_results(reports))}]} if reports else {}),
    }
    share = config.interpolate if interpolate is None else interpolate
    chosen = f"weights `{weights or ('ema' if config.ema else 'latest')}`"
    chosen += f", {share:g} of them and the rest the start's" if share < 1 else ""
    data, licences = _data(config)
    text = _CARD.format(
        name=name,
        version=version("macco"),
        objective=config.objective,
        start=f"`{_start(config)}`",
        load=_LOADS[format].format(name=name),
        data=data,
        trained=_trained(config, chosen),
        settings=yaml.safe_dump(without_folders(_settings(config)), sort_keys=False),
        figures=_figures(reports),
        licences="\n".join([f"- the start, `{_start(config)}`: its own", *licences]),
    )
    put_file(out / FILE, f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{text}".encode())
    log(f"to publish it: hf upload NAME/{name} {out}")


def _reports(run: Path, out: Path, given: Sequence[Path], *, as_trained: bool) -> list[Report]:
    """What `eval` has written of this model; figures of a run are of its own weights, as it was configured."""
    models = {one.resolve() for one in ((out, run, run / "model") if as_trained else (out,))}
    found = []
    for folder in given or sorted(file.parent for file in run.glob("*/report.json")):
        try:
            report = json.loads((folder / "report.json").read_bytes())
            mine, _ = Path(report["model"]).resolve() in models, report["benchmarks"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no report.json of macco-train eval") from error
        if mine:
            found.append(report)
        elif given:
            raise UserError(
                f"{folder} has figures of {report['model']}, not of {out}: evaluate that, or leave --figures out"
            )
    return found


def _results(reports: Sequence[Report]) -> Iterator[dict[str, Any]]:
    """For the model index: each figure that is defined, in percent."""
    for report in reports:
        for benchmark in report["benchmarks"]:
            metrics = [
                {"type": "accuracy", "name": one["figure"], "value": round(one["percent"], 2)}
                for one in benchmark["figures"]
                if one["percent"] is not None
            ]
            if metrics:
                yield {
                    "task": {"type": "zero-shot-image-classification", "name": "image-text matching"},
                    "dataset": {"type": benchmark["benchmark"], "name": benchmark["title"]},
                    "metrics": metrics,
                }


def _figures(reports: Sequence[Report]) -> str:
    if not reports:
        return "This model was not evaluated: there are no figures."
    rows = [
        [
            benchmark["title"],
            one["figure"],
            number(one["percent"]),
            "" if one["low"] is None else f"{number(one['low'])} – {number(one['high'])}",
            f"{sum(c['used'] for c in benchmark['counts'])} of {sum(c['in_files'] for c in benchmark['counts'])}",
        ]
        for report in reports
        for benchmark in report["benchmarks"]
        for one in benchmark["figures"]
    ]
    lines = table(["benchmark", "figure", "percent", "95 %", "items used"], rows)
    return "\n".join(
        ["Of `macco-train eval`: a tie is wrong, unless a figure's name says otherwise.", "", *lines]
    )


def _data(config: TrainConfig) -> tuple[str, list[str]]:
    """The store in figures, as it is now, and the licences of what it was made of."""
    name = without_folders(config.data.store)
    chosen = f"Chosen by `{config.data.where}`." if config.data.where else "All of its usable captions."
    try:
        store = Store.open(config.data.store).choose_boxes(own_boxes(config))
        with connect(store) as connection:
            samples, images = connection.execute(
                "SELECT count(*) FILTER (status = 'ok'), count(DISTINCT (dataset, shard, key)) FROM samples"
            ).fetchall()[0]
            (boxes,) = connection.execute("SELECT count(*) FROM boxes").fetchall()[0]
            kinds = connection.execute(
                "SELECT kind, count(*) FROM concepts WHERE part = 0 GROUP BY 1 ORDER BY 1"
            )
            counts = {"captions": samples, "images": images} | {f"{kind}s": n for kind, n in kinds.fetchall()}
            datasets = connection.execute("SELECT DISTINCT dataset FROM samples ORDER BY 1").fetchall()
    except UserError:
        lost = f"The concept store `{name}`, which cannot be opened where this card was written. {chosen}"
        return lost, ["- the store's captions and images, and the models that annotated them: not known here"]
    settings = store.made_with
    lines = table(["", ""], [[what, f"{n:,}"] for what, n in (counts | {"boxes": boxes}).items()])
    made = yaml.safe_dump(without_folders(settings), sort_keys=False)
    said = [
        f"The concept store `{name}`, of {', '.join(f'`{one}`' for (one,) in datasets) or 'nothing'}. {chosen}",
        "",
        *lines,
        "",
        f"Its settings, whose fingerprint is `{fingerprint(settings)}`:",
        "",
        f"```yaml\n{made}```",
    ]
    licences = [f"- `{one}`: {licence(one)}" for (one,) in datasets]
    models = [store.boxes_of or store.detector, settings.get("parser", "")]
    licences += [f"- `{without_folders(one)}`, which made the annotations: its own" for one in models if one]
    return "\n".join(said), licences


def _trained(config: TrainConfig, chosen: str) -> str:
    settings = yaml.safe_dump(_settings(config)[config.settings.group], sort_keys=False)
    long = f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs"
    return (
        f"`{config.objective}`, {long} of {config.data.batch_size} pairs at a rate of {config.optimizer.lr:g}; seed "
        f"{config.seed}; {chosen}.\n\n```yaml\n{settings}```"
    )


def _settings(config: TrainConfig) -> dict[str, Any]:
    """What shaped the run: without other objectives' settings, and without what is of the machine."""
    others = groups().keys() - {config.settings.group}
    return {name: value for name, value in values(config).items() if name not in (*others, *_MACHINE)}


def _start(config: TrainConfig) -> str:
    name = without_folders(config.model.name)
    return f"{name}, {without_folders(config.model.pretrained)}" if config.model.pretrained else str(name)


def _base_model(config: TrainConfig) -> str | None:
    """The start's name on the Hub, where open_clip says one."""
    import open_clip

    name = config.model.name
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:")
    known = open_clip.get_pretrained_cfg(name, config.model.pretrained) if config.model.pretrained else {}
    hub = str((known or {}).get("hf_hub", "")).strip("/")
    return "/".join(hub.split("/")[:2]) or None
