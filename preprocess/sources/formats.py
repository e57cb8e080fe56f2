"""Which kind of source a file or folder is: by what it holds, and by its name only where that does not tell."""

import re
from collections.abc import Sequence
from typing import Final, Literal, get_args

from macco.pipeline.content import PARQUET, TAR, kind, peek
from macco.pipeline.errors import UserError
from macco.pipeline.urls import folder, is_folder, is_local, join, listing, stem
from macco.preprocess.sources import documents, image_folder
from macco.preprocess.sources.delimited import SEPARATORS

Format = Literal[
    "auto", "webdataset", "table", "csv", "parquet", "coco", "karpathy", "json", "jsonl", "folder"
]
FORMATS: Final = get_args(Format)

_TAR_NAME = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_PACKED = re.compile(r"\.(gz|bz2|xz|zst)$", re.IGNORECASE)
_BY_NAME: Final = {
    ".tsv": "table",
    ".csv": "table",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_METADATA = re.compile(r"(^|/)metadata\.(jsonl|csv|parquet)$")  # Hugging Face's image folders


def format_of(url: str, given: str) -> str:
    """The format of a file or folder, if `given` is "auto"; raises UserError where it is not what is given."""
    if is_folder(url):
        return "folder"
    named_tar = _TAR_NAME.search(url) is not None
    if named_tar and not is_local(url) and given in ("auto", "webdataset"):
        return "webdataset"  # a thousand shards far away are not opened to be named
    try:
        packed, head = peek(url)
    except OSError as error:
        raise UserError(f"cannot read {url}: {error}") from error
    held = {TAR: "webdataset", PARQUET: "parquet"}.get(kind(head) or "")
    if held == "parquet" and packed is not None:
        raise UserError(f"{url} is a Parquet file inside {packed}: decompress it first")
    if held is not None and given not in ("auto", held):
        raise UserError(f"{url} is not {given}, it is a {kind(head)} file: give --format {held}, or none")
    if given == "folder":
        raise UserError(f"{url} is a file: --format folder wants the folder of the images")
    if given != "auto":
        return given
    return held or ("webdataset" if named_tar else _text_format(url, head))


def _text_format(url: str, head: bytes) -> str:
    name = _PACKED.sub("", url.lower())
    for ending, format in _BY_NAME.items():
        if name.endswith(ending):
            return format
    if name.endswith(".json") or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return documents.format_of(url)
    if image_folder.is_image(url):
        raise UserError(f"{url} is an image: give its folder, for example --shards '{folder(url)}'")
    first = head.partition(b"\n")[0]
    if b"\0" not in head and any(separator.encode() in first for separator in SEPARATORS):
        return "table"
    raise UserError(
        f"cannot tell the format of {url!r} by its name or its content: give one of {', '.join(FORMATS[1:])}"
    )


def sources_in(url: str, given: str) -> list[str]:
    """What to read in place of a folder: itself, as images with their texts, or the tables that describe its images.

    Raises UserError that says what to give where it is neither.
    """
    names = listing(url)
    if given == "folder":
        if not any(map(image_folder.is_image, names)):
            raise UserError(f"{url!r} is a folder without images")
        return [url]
    tables = [join(url, name) for name in names if _METADATA.search(name)]
    if tables:
        return tables
    if given == "auto" and image_folder.with_texts(names) and not any(map(_TAR_NAME.search, names)):
        return [url]
    shards = [
        name
        for name in names
        if _TAR_NAME.search(name) or _PACKED.sub("", name).endswith((*_BY_NAME, ".json"))
    ]
    if shards and image_folder.with_json(names, shards):
        raise UserError(
            f"{url!r} is a folder of images with .json beside them: --format folder takes the captions of these"
        )
    if shards:
        first = min(shards, key=lambda name: (_TAR_NAME.search(name) is None, name.count("/"), name))
        where = join(url, f"{folder(first)}/" if "/" in first else "")
        pattern = f"{where.rstrip('/')}/*{_ending(first)}"
        raise UserError(f"{url!r} is a folder; name its files, for example '{pattern}'")
    if any(map(image_folder.is_image, names)):
        raise UserError(
            f"{url!r} is a folder of images without texts beside them: give the table that has their captions "
            "(with --image-root), or --format folder to read the images alone"
        )
    raise UserError(f"{url!r} is a folder that holds no tar, no table and no image")


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    return last[len(stem(last)) :]


def without_sidecars(urls: Sequence[str]) -> list[str]:
    """Leave out what img2dataset writes beside its shards, which is read with them: `00000.parquet`, `_stats.json`."""
    tars = {join(folder(url), stem(url)) for url in urls if _TAR_NAME.search(url)}
    shards = tars | {url.removesuffix(".parquet") for url in urls if url.endswith(".parquet")}
    return [
        url
        for url in urls
        if not (url.endswith(".parquet") and url.removesuffix(".parquet") in tars)
        and not (url.endswith("_stats.json") and url.removesuffix("_stats.json") in shards)
    ]
