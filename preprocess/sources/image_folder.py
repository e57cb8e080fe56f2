"""A folder of images with texts beside them, in sub-folders too: `a.jpg` and `a.txt`, `.caption` or `.json`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from posixpath import splitext

from macco.pipeline.schema import OK, Status
from macco.pipeline.urls import join, listing, open_url
from macco.preprocess.graph.refusal import CaptionError
from macco.preprocess.sources.member import Member, read_captions
from macco.preprocess.sources.source_image import IMAGE, MAX_BYTES, SourceImage
from macco.preprocess.sources.tables import item_of

_TEXTS = {".txt": "txt", ".caption": "txt", ".json": "json"}  # by the key that `read_captions` knows them by


def is_image(name: str) -> bool:
    """Tell an image by its ending."""
    return splitext(name)[1][1:].lower() in IMAGE


def with_texts(names: Sequence[str]) -> bool:
    """Tell whether any image of a folder has a text of its own beside it."""
    images = {splitext(name)[0] for name in names if is_image(name)}
    return any(
        splitext(name)[1].lower() in (".txt", ".caption") and splitext(name)[0] in images for name in names
    )


def with_json(names: Sequence[str], files: Sequence[str]) -> bool:
    """Tell whether each of these files is a `.json` beside an image of the folder."""
    images = {splitext(name)[0] for name in names if is_image(name)}
    return all(name.lower().endswith(".json") and splitext(name)[0] in images for name in files)


def count(url: str) -> int:
    """Return the number of images in a folder, and of texts without one."""
    _names.cache_clear()  # asked once, before the shards are read: what came since is to be seen
    return len(_names(url)[0])


def read(
    url: str, captions: tuple[str, ...], start: int, stop: int | None, *, follow: bool = True
) -> Iterator[SourceImage]:
    """Yield the images [start, stop) of a folder, by name, and in their place the texts that have none.

    Keys are paths inside the folder. `captions` names where captions are, as in tars: "txt", or keys of the json.
    Images are opened only to `follow` their names.
    """
    names, beside = _names(url)
    for name in names[start:stop]:
        texts: dict[str, Member] = {}
        unread: list[CaptionError] = []
        for ending in beside[splitext(name)[0]]:
            try:
                with open_url(join(url, ending)) as stream:
                    data = stream.read(MAX_BYTES)
                texts.setdefault(_TEXTS[splitext(ending)[1].lower()], Member(ending, 0, len(data), data))
            except OSError as problem:
                unread.append(CaptionError(Status.MISSING_CAPTION, f"cannot read {ending}: {problem}"))
        found, status, error = read_captions(texts, captions)
        if not is_image(name):
            words = "no image beside it"
            yield SourceImage(
                name, found, None, join(url, name), name, status=Status.MISSING_IMAGE, error=words
            )
            continue
        item = item_of(name, found or tuple(unread), join(url, name), "", url, url, follow=follow)
        item = replace(item, member=name)
        yield (
            item if item.status != OK or (unread and not found) else replace(item, status=status, error=error)
        )


@lru_cache(maxsize=1)
def _names(url: str) -> tuple[list[str], dict[str, list[str]]]:
    """What a folder has rows for, in order, and the names of the texts beside each stem."""
    names = listing(url)
    beside: dict[str, list[str]] = {}
    images = {splitext(name)[0]: beside.setdefault(splitext(name)[0], []) for name in names if is_image(name)}
    alone = []
    for name in names:
        stem, ending = splitext(name)
        if ending.lower() not in _TEXTS:
            continue
        if stem not in images and ending.lower() != ".json":  # a json may be about anything
            alone.append(name)
        beside.setdefault(stem, []).append(name)
    return sorted([*filter(is_image, names), *alone]), {
        stem: sorted(texts, key=lambda text: list(_TEXTS).index(splitext(text)[1].lower()))
        for stem, texts in beside.items()
    }
