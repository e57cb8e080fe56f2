"""Where images and captions come from: `plan` names the shards, `Shard.read` yields their SourceImages."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from macco.pipeline.errors import UserError
from macco.pipeline.urls import expand, folder, is_folder, plain, stem
from macco.preprocess.sources.formats import FORMATS, format_of, sources_in, without_sidecars
from macco.preprocess.sources.manifest import load_manifest
from macco.preprocess.sources.shard import Shard
from macco.preprocess.sources.source_image import SourceImage

__all__ = ["FORMATS", "Shard", "SourceImage", "plan", "plan_manifest"]


def plan(
    patterns: Sequence[str],
    *,
    dataset: str | None = None,
    format: str = "auto",
    caption_field: str | Sequence[str] | None = None,
    image_field: str | None = None,
    key_field: str | None = None,
    image_root: str | None = None,
    rows_per_shard: int = 1000,
) -> list[Shard]:
    """Name the shards of some files or folders, in order.

    Of tars the first bytes are read at most; tables are read, to be counted.

    `dataset` defaults to the name of each file's folder. Raises UserError for patterns that match
    nothing, unknown formats, missing columns, unreadable tables and shard names that collide.
    """
    options = (caption_field, image_field, key_field, image_root)
    return _shards(_files(patterns, dataset, format, *options), rows_per_shard)


def plan_manifest(
    path_or_name: str, root: str | None, *, dataset: str | None = None, rows_per_shard: int = 1000
) -> list[Shard]:
    """Name the shards of all splits of a manifest's corpus, which lies in `root`."""
    manifest = load_manifest(path_or_name)
    fields = manifest.fields
    files = [
        file
        for one in manifest.located(root)
        for file in _files(
            [one.pattern],
            dataset or manifest.name,
            manifest.format,
            fields.caption,
            fields.image,
            fields.key,
            one.image_root,
        )
    ]
    return _shards(files, rows_per_shard)


def _files(
    patterns: Sequence[str],
    dataset: str | None,
    format: str,
    captions: str | Sequence[str] | None,
    image: str | None,
    key: str | None,
    image_root: str | None,
) -> list[Shard]:
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    found = [
        source
        for url in expand(patterns, folders=True)
        for source in (sources_in(url, format) if is_folder(url) else [url])
    ]
    return [
        Shard(
            dataset=dataset or (url if is_folder(url) else folder(url)).rpartition("/")[2] or "data",
            name=url.rpartition("/")[2] if is_folder(url) else stem(url),
            url=url,
            format=format_of(url, format),
            captions=(captions,) if isinstance(captions, str) else tuple(captions or ()),
            image=image,
            key=key,
            image_root=None if image_root is None else plain(image_root),
        )
        for url in without_sidecars(found)
    ]


def _shards(files: list[Shard], rows: int) -> list[Shard]:
    if rows < 1:
        raise UserError(f"rows per shard is {rows}: it is at least 1")
    return [part for file in _named(files) for part in _split(file, rows)]


def _named(files: list[Shard]) -> list[Shard]:
    """Make names unique: a store's files are named by shard alone, whatever the dataset."""

    def doubles() -> set[str]:
        return {name for name, times in Counter(file.name for file in files).items() if times > 1}

    again = doubles()
    files = [
        replace(file, name=f"{folder(file.url).rpartition('/')[2]}-{file.name}")
        if file.name in again
        else file
        for file in files
    ]
    if still := sorted(doubles()):
        urls = [file.url for file in files if file.name == still[0]]
        raise UserError(
            f"{urls[0]} and {urls[1]} would be the same shard {still[0]!r}: extract them into two stores"
        )
    return files


def _split(file: Shard, rows: int) -> Iterator[Shard]:
    if file.format == "webdataset":
        yield file
        return
    count = file.count()
    for number, start in enumerate(range(0, max(count, 1), rows)):
        name, stop = f"{file.name}-{number:05}", min(start + rows, count)
        yield replace(file, name=name, start=start, stop=stop, rows_per_shard=rows)
