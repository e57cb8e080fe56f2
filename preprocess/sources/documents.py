"""JSON that names images: COCO's captions, Karpathy's splits, a list of objects, or an object a line."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from macco.pipeline.content import open_plain, peek
from macco.pipeline.errors import UserError
from macco.preprocess.sources.index import Index, Table, choose_fields, index, text_of_cell

_PEEK = 2**20  # bytes that tell what a document is


def format_of(url: str) -> str:
    """Tell by its first bytes which of the four a JSON file is: the name of its format."""
    data = peek(url, _PEEK)[1]
    head = data.decode(json.detect_encoding(data), "replace").lstrip()
    if head.startswith("["):
        return "json" if head[1:].lstrip()[:1] == "{" else "coco"
    first, _, more = head.partition("\n")
    try:
        one = json.loads(first)
    except (ValueError, RecursionError):
        one = None
    if isinstance(one, dict) and (more.strip() or not one.keys() & {"images", "annotations"}):
        return "jsonl"
    return "karpathy" if '"sentences"' in head else "coco"


def coco(source: Table) -> Index:
    """COCO's captions: `images` {id, file_name} and `annotations` {id, image_id, caption}."""
    document = _load(source)
    try:
        names: dict[str, str] = {}
        for image in document["images"]:
            number, name = _id(image["id"]), text_of_cell(image["file_name"])
            if names.setdefault(number, name) != name:
                both = f"{names[number]!r} and {name!r}"
                raise UserError(f"{source.url} has two images of the id {number}, {both}: number them anew")
        texts: dict[str, list[Any]] = {number: [] for number in names}
        for one in sorted(document["annotations"], key=lambda one: one["id"]):
            texts.setdefault(_id(one["image_id"]), []).append(one["caption"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{source.url} is no COCO captions file: {error!r} (images and annotations); --format karpathy and "
            "json are for others"
        ) from error
    rows = [
        (_plain(number), _plain(names.get(number, "")), text)
        for number, found in texts.items()
        for text in found or [None]
    ]
    columns = {
        "id": pa.array([row[0] for row in rows], pa.string()),
        "file_name": pa.array([row[1] for row in rows], pa.string()),
        "caption": pa.array([json.dumps(row[2]) for row in rows], pa.string()),
    }
    return index(pa.table(columns), ("caption",), "file_name", "id", as_json=True)


def karpathy(source: Table) -> Index:
    """Karpathy's splits: `images` {filepath, filename, split, sentences: [{raw}]}; keys begin with the split."""
    document = _load(source)
    rows: list[tuple[Any, ...]] = []
    try:
        for image in document["images"]:
            folder, name, split = (text_of_cell(image.get(key)) for key in ("filepath", "filename", "split"))
            path = f"{folder}/{name}" if folder and name else name
            texts = [sentence.get("raw") for sentence in image["sentences"]]
            rows += [(path, f"{split}/{path}" if split else path, text) for text in texts or [None]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source.url} is no Karpathy JSON: {error!r} (images, each with filename and sentences)"
        ) from error
    return _index(rows, ("caption",), "filename", keyed=True)


def json_list(source: Table) -> Index:
    """A list of objects, each with an image and captions."""
    document = _load(source)
    if not isinstance(document, list):
        raise UserError(
            f"{source.url} is no list of objects; --format coco, karpathy and jsonl are for others"
        )
    return _objects(source, enumerate(document, 1))


def json_lines(source: Table) -> Index:
    """An object a line, each with an image and captions."""
    return _objects(source, _lines(source.url))


def _id(value: Any) -> str:
    """An image's id as text: 1, 1.0 and "1" are one, as programs write them."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _load(source: Table) -> Any:
    with open_plain(source.url) as stream:
        return json.loads(stream.read())


def _lines(url: str) -> Iterator[tuple[int, Any]]:
    """Line numbers and what stands in each line that is not empty: an exception where it is no JSON."""
    with open_plain(url) as stream:
        data = stream.read().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            # One bad byte is one bad caption: as a surrogate it stays one.
            yield number, json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            yield number, error


def _objects(source: Table, numbered: Iterable[tuple[int, Any]]) -> Index:
    broken: list[tuple[int, str]] = []
    good: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for number, one in numbered:
        if isinstance(one, dict):
            good.append(one)
            names.update(dict.fromkeys(one))
        else:
            broken.append((number, f"no JSON: {one}" if isinstance(one, Exception) else "no JSON object"))
    image, captions, key = choose_fields(source, list(names))
    rows = [
        (
            _path(one.get(image)),
            text_of_cell(one.get(key)) if key else "",
            *(one.get(name) for name in captions),
        )
        for one in good
    ]
    return _index(rows, captions, image, keyed=key is not None, broken=broken)


def _path(value: Any) -> str:
    return text_of_cell(value.get("path") if isinstance(value, dict) else value)


def _plain(text: str) -> str:
    """A text that UTF-8 can hold: half a surrogate pair is told as one."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def _index(
    rows: list[tuple[Any, ...]],
    captions: tuple[str, ...],
    image: str,
    *,
    keyed: bool,
    broken: list[tuple[int, str]] | None = None,
) -> Index:
    """Of rows (path, key, value of each caption field). Values have any type in any row: they are kept as JSON."""
    fields = tuple(f"caption {number}" for number in range(len(captions)))
    columns = {
        "image": [_plain(row[0]) for row in rows],
        "key": [_plain(row[1]) for row in rows],
    } | {name: [json.dumps(row[2 + place]) for row in rows] for place, name in enumerate(fields)}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return index(table, fields, "image", "key" if keyed else "image", as_json=True, broken=broken or ())
