"""data_manifests/benchmarks/*.yaml: where a benchmark comes from, its licence, counts, checksums, known figures."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from macco.pipeline.errors import UserError
from macco.pipeline.yamls import read_model, read_yaml
from macco.train.evaluation.bundle import bundle, packed

FOLDER: Final = Path(__file__).parents[2] / "data_manifests" / "benchmarks"
IMAGES: Final = "_images"  # the one file that describes image collections, which benchmarks share

Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """One official file. `items` is what it should hold after the benchmark's own filter."""

    path: Text
    items: int | None = None
    sha256: str | None = None
    optional: bool = False


class BenchmarkManifest(_Strict):
    """One benchmark; `files` by subset."""

    name: Text
    title: Text
    licence: Text
    homepage: Text
    citation: Text
    get: Text  # one line: what to download
    files: dict[str, File]
    folder: Text | None = None  # the benchmark whose folder it shares; None: its own
    images: list[str] = []
    published: dict[str, dict[str, float]] = {}  # figure -> model -> percent
    lists: dict[str, list[str]] = {}  # names that the rule speaks of
    notes: str = ""


class Collection(_Strict):
    """A folder of images that benchmarks share."""

    folder: Text
    licence: Text
    get: Text | None = None  # None: with the files of the benchmark that uses it


def known_benchmarks() -> list[str]:
    """Names of all described benchmarks."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("_"))


def load_benchmark_manifest(name: str) -> BenchmarkManifest:
    """Raises UserError where no benchmark has that name, or its file is malformed."""
    path = FOLDER / f"{name}.yaml"
    if name not in known_benchmarks():
        raise UserError(f"no benchmark is called {name!r}; there are {', '.join(known_benchmarks())}")
    return read_model(path, BenchmarkManifest)


def collections() -> dict[str, Collection]:
    """All image collections by name."""
    described = read_yaml(FOLDER / f"{IMAGES}.yaml")
    return {name: Collection.model_validate(entry) for name, entry in described.items()}


class MissingDataError(UserError):
    """A data set that is not there; the message says what to download and where to put it."""


class Places:
    """Where data lies: under one root by default names, with overrides by benchmark or collection name."""

    def __init__(self, root: Path, overrides: Mapping[str, Path] | None = None) -> None:
        self.root = root
        self.overrides = dict(overrides or {})
        self.collections = collections()
        unknown = set(self.overrides) - set(self.collections) - set(known_benchmarks())
        if unknown:
            known = ", ".join([*known_benchmarks(), *self.collections])
            raise UserError(
                f"--path {min(unknown)}=... names neither a benchmark nor images; there are {known}"
            )

    def folder(self, benchmark: str) -> Path:
        """Where the files of a benchmark's name lie."""
        return self.overrides.get(benchmark, self.root / benchmark)

    def images(self, collection: str) -> Path:
        """Where an image collection lies, whether or not it is there: in its own layout, or the bundle's.

        Images inside a benchmark's folder are looked for where that folder was said to be.
        """
        return self._there(collection)[0]

    def picture(self, collection: str, path: str) -> Path:
        """Where an image of a collection lies: the bundle spreads some over several folders."""
        folders = self._there(collection)
        if len(folders) > 1:
            return next((folder / path for folder in folders if (folder / path).is_file()), folders[0] / path)
        return folders[0] / path

    def packed(self, collection: str) -> str | None:
        """What to run where a collection lies there as an archive."""
        return next((line for folder in self._candidates(collection) if (line := packed(folder))), None)

    def file(self, manifest: BenchmarkManifest, subset: str) -> Path:
        """The official file of a subset; raises MissingDataError where it is not there."""
        path = self.find(manifest, subset)
        if not path.is_file():
            raise MissingDataError(f"{manifest.name}: no {path}; {packed(path.parent) or manifest.get}")
        return path

    def find(self, manifest: BenchmarkManifest, subset: str) -> Path:
        """Where the official file of a subset lies, or would: in the benchmark's own layout, or the bundle's."""
        home = manifest.folder or manifest.name
        there = bundle().benchmarks.get(home)
        folders, names = [self.folder(home)], [manifest.files[subset].path]
        if there is not None:
            folders += [self.root / folder for folder in there.folders if home not in self.overrides]
            names += [there.files[subset]] if subset in there.files else []
        paths = [folder / name for folder in folders for name in names]
        return next((path for path in paths if path.is_file()), paths[0])

    def _there(self, collection: str) -> list[Path]:
        """The folders of a collection that are there; where none is, the one that it should be in."""
        folders = self._candidates(collection)
        return [folder for folder in folders if folder.is_dir()] or folders[:1]

    def _candidates(self, collection: str) -> list[Path]:
        if collection in self.overrides:
            return [self.overrides[collection]]
        first, *rest = Path(self.collections[collection].folder).parts
        if first in self.overrides and (moved := self.overrides[first].joinpath(*rest)).is_dir():
            return [moved]
        others = bundle().images.get(collection, [])
        return [self.root.joinpath(first, *rest), *(self.root / folder for folder in others)]


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
