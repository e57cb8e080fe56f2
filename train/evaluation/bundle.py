"""The MACCO authors' collection of all evaluation files: where in it each benchmark lies, and what is packed there."""

import re
from functools import cache
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict

MANIFEST: Final = Path(__file__).parents[2] / "data_manifests" / "benchmarks" / "_bundle.yaml"
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar", ".zip")
_PART: Final = re.compile(r".part-?(\d+)")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Strict):
    """Where one benchmark's files lie, from the collection's root."""

    folders: list[str]
    files: dict[str, str] = {}  # subset -> path in a folder, where it is not the manifest's
    roots: dict[str, str] = {}  # subset -> folder that paths of images start from


class Bundle(_Strict):
    """The collection."""

    title: str
    licence: str
    homepage: str
    get: str
    benchmarks: dict[str, Place]
    images: dict[str, list[str]]  # collection -> folders that may hold its images


@cache
def bundle() -> Bundle:
    """The described collection."""
    return Bundle.model_validate(yaml.safe_load(MANIFEST.read_text("utf-8")))


def packed(folder: Path) -> str | None:
    """What to run where a folder lies there as an archive, whole or in parts; None where none does."""
    for ending in _ARCHIVES:
        archive = folder.with_name(folder.name + ending)
        parts = sorted(archive.parent.glob(f"{archive.name}.part*"))
        if parts and not archive.is_file():
            numbers = [int(found[1]) for part in parts if (found := _PART.fullmatch(part.suffix))]
            if lost := sorted(set(range(max(numbers, default=0))) - set(numbers)):
                return f"{archive}.part-{lost[0]:03} is missing: download it"
            return f"cat {archive}.part-* | tar xzf - -C {archive.parent}, so that it holds {folder.name}/"
        if archive.is_file():
            unpack = "unzip -q" if ending == ".zip" else "tar xf"
            into = "-d" if ending == ".zip" else "-C"
            return f"{unpack} {archive} {into} {archive.parent}, so that it holds {folder.name}/"
    return None
