"""What a road needs: what is there of it, what is not and how to get it, and how much there is."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from open_clip import get_pretrained_cfg

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.train.config import ModelConfig
from macco.train.evaluation.bundle import bundle
from macco.train.evaluation.manifest import MissingDataError, Places, load_benchmark_manifest
from macco.train.evaluation.registry import expand, pictures_of
from macco.train.study.reproduce.published import checkpoints

CORPORA: Final = Path(__file__).parents[3] / "data_manifests"
SEEN: Final = "seen.json"
ENDINGS: Final = (".pt", ".pth", ".bin", ".safetensors")
ORDERS: Final = {  # benchmark -> the Karpathy split whose captions are shuffled, as retrieval reads it
    "coco_order": "coco_retrieval",
    "flickr30k_order": "flickr30k_retrieval",
}

Counts = dict[str, int]


@dataclass(frozen=True)
class Need:
    """One thing of a road's."""

    what: str
    there: bool
    get: str  # what to run, or where to look, where it is not there
    counts: Counts
    expected: Counts
    needed: bool = True  # without it the road cannot begin

    def line(self) -> str:
        """For people."""
        has = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        other = ", ".join(
            f"{count:,} {name} expected"
            for name, count in self.expected.items()
            if self.counts.get(name, count) != count
        )
        if self.there:
            return f"there    {self.what}: " + "; ".join(part for part in (has, other) if part)
        return f"MISSING  {self.what}{'' if self.needed else ' (not needed)'}: {' '.join(self.get.split())}"


@dataclass(frozen=True)
class Corpus:
    """The authors' annotations, and the folder that their paths start from."""

    tsv: Path
    root: Path
    rows: int
    images: int
    absent: int  # rows whose image is not there
    get: str
    expected: int


def corpus(name: str, data: Path) -> Corpus | Need:
    """Find macco_NAME's TSV in `data`, or beside it as in the authors' repository; a Need where there is none.

    Raises UserError for a file that is no such table.
    """
    manifest = yaml.safe_load((CORPORA / f"macco_{name}.yaml").read_text("utf-8"))
    file = Path(manifest["shards"][0]["pattern"]).name
    found = next((folder / file for folder in (data, data.parent) if (folder / file).is_file()), None)
    if found is None:
        return Need(file, False, manifest["get"], {}, {})
    paths = _paths(found)
    roots = [data, data / "datasets", data / "coco", data.parent]
    root = max(roots, key=lambda folder: sum((folder / path).is_file() for path in paths[:200]))
    there = {path for path in set(paths) if (root / path).is_file()}
    expected: int = manifest["shards"][0]["counts"]["captions"]
    absent = sum(path not in there for path in paths)
    return Corpus(found, root, len(paths), len(set(paths)), absent, manifest["get"], expected)


def _paths(tsv: Path) -> list[str]:
    csv.field_size_limit(2**24)
    try:
        with tsv.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            if "filepath" not in (reader.fieldnames or ()):
                raise UserError(f"{tsv} is no MACCO TSV: it has no column 'filepath'")
            return [row["filepath"] or "" for row in reader]
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {tsv}: {error}") from error


def corpus_needs(found: Corpus | Need, *, needed: bool = True) -> list[Need]:
    """The TSV and its images."""
    if isinstance(found, Need):
        return [Need(found.what, False, found.get, {}, {}, needed)]
    counts = {"rows": found.rows, "images": found.images}
    pictures = {"rows with their image": found.rows - found.absent}
    return [
        Need(found.tsv.name, True, "", counts, {"rows": found.expected}, needed),
        Need(f"images under {found.root}", found.absent < found.rows, found.get, pictures,
             {"rows with their image": found.rows}, needed),
    ]  # fmt: skip


def checkpoint_files(data: Path, given: Sequence[Path]) -> dict[str, Path]:
    """The checkpoints by name: those given, or those in the folder that the authors' are fetched into."""
    folder = data / checkpoints().folder
    files = given or sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS and path.is_file())
    if lost := [path for path in files if not path.is_file()]:
        raise UserError(f"no checkpoint at {lost[0]}: give the path of a .pt, .bin or .safetensors file")
    named = {
        "-".join((path.relative_to(folder) if path.is_relative_to(folder) else path.relative_to(path.parent))
                 .with_suffix("").parts): path
        for path in files
    }  # fmt: skip
    if len(named) < len(files):
        raise UserError(
            "two checkpoints have one name: give them one at a time, each with an --out of its own"
        )
    return named


def checkpoint_needs(files: dict[str, Path]) -> list[Need]:
    if not files:
        return [Need("the authors' checkpoints", False, checkpoints().get, {}, {})]
    return [
        Need(f"checkpoint {name}", True, "", {"bytes": path.stat().st_size}, {})
        for name, path in files.items()
    ]


def start_needs(model: ModelConfig) -> list[Need]:
    """The weights that training starts from, where they come from the network."""
    if not model.pretrained or Path(model.pretrained).is_file() or Path(model.name).exists():
        return []
    line = f"python -c \"import open_clip; open_clip.create_model('{model.name}', pretrained='{model.pretrained}')\""
    way = f"is fetched when training starts; or before: {line}"
    return [Need(f"{model.name} of {model.pretrained}", _cached(model), way, {}, {}, False)]


def _cached(model: ModelConfig) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found: Any = get_pretrained_cfg(model.name, model.pretrained) or {}
    repository = str(found.get("hf_hub", "")).rstrip("/")
    names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    if repository and any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        return True
    return (Path.home() / ".cache/clip" / Path(str(found.get("url", "-"))).name).is_file()


def detector_needs(*names: str) -> list[Need]:
    """Parser and detector, as `macco-prep models` knows them; what it does not list says itself when it is used."""
    command = [sys.executable, "-m", "macco.preprocess", "models"]
    listed = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [
        Need(f"{one['kind']} {one['name']}", one["here"], one.get("get", ""), {}, {})
        for one in listed
        if one["name"] in names
    ]


def benchmark_needs(places: Places, tagger: str) -> list[Need]:
    """Every benchmark, with items' pictures; none is needed, as what is not there is left out."""
    needs = []
    for name in expand(["all"]):
        if name.startswith("demo"):
            continue
        manifest = load_benchmark_manifest(name)
        if name in ORDERS and not places.find(manifest, next(iter(manifest.files))).is_file():
            needs.append(_order_need(name, places, tagger))
            continue
        try:
            pictures, absent = pictures_of(name, places)
        except MissingDataError:
            way = (
                f"{manifest.get}; or all in one: {bundle().get}"
                if name in bundle().benchmarks
                else manifest.get
            )
            needs.append(Need(name, False, way, {}, {}, False))
            continue
        except UserError as error:
            needs.append(Need(name, False, str(error), {}, {}, False))
            continue
        files = {picture.source for picture in pictures}
        there = sum(Path(file).is_file() for file in files)
        counts = {"images": there, "files": len(manifest.files) - len(absent)}
        needs.append(
            Need(name, True, "", counts, {"images": len(files), "files": len(manifest.files)}, False)
        )
        for collection in manifest.images:
            if there < len(files) and (line := places.packed(collection)):
                needs.append(Need(f"images of {name}", False, line, {}, {}, False))
    return needs


def _order_need(name: str, places: Places, tagger: str) -> Need:
    """The shuffles, which are drawn here: of a caption file, by a tagger."""
    split = load_benchmark_manifest(ORDERS[name])
    file = places.find(split, "text")
    if not file.is_file():
        return Need(name, False, split.get, {}, {}, False)
    installed = Path(tagger).is_dir() or importlib.util.find_spec(tagger) is not None
    way = f"python -m spacy download {tagger} (tags the captions that are shuffled)"
    return Need(f"{name} (shuffled of {file.name})", installed, way, {}, {}, False)


def disk_line(out: Path, gb: float) -> str:
    """How much will be written, and how much room there is."""
    folder = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    return f"disk: about {gb:.1f} GB will be written to {out}, {free:.0f} GB are free" + (
        "" if free > gb else ": TOO FEW"
    )


def remember(out: Path, needs: Sequence[Need]) -> list[str]:
    """Write down what was seen first; return a line for each count that is another now."""
    file = out / SEEN
    try:
        first: dict[str, Counts] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): delete it") from error
    now = {need.what: need.counts for need in needs if need.there and need.counts}
    put_file(file, (json.dumps(now | first, indent=1) + "\n").encode())
    return [
        f"{what}: {count:,} {name}, {first[what][name]:,} when it was first seen"
        for what, counts in now.items()
        for name, count in counts.items()
        if first.get(what, {}).get(name, count) != count
    ]
