"""One image as the page draws it: its captions with their concepts and spans, its boxes, where its bytes lie."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import duckdb

from macco.pipeline.pictures import ANY_PIXELS, ImageError, decode, read_image_bytes
from macco.pipeline.query import dicts
from macco.pipeline.schema import NEGATIVE_KINDS, OK
from macco.pipeline.views import quote

_SAMPLES: Final = """
    SELECT dataset, shard, key, caption_id, sample_id, caption, width, height, source, member, "offset", size,
           status, error
    FROM {samples} WHERE {these} ORDER BY row"""
_CONCEPTS: Final = """
    SELECT sample_id, concept_id, any_value(kind) AS kind, any_value(lemma) AS lemma, any_value(phrase) AS phrase,
           list([start, "end"] ORDER BY part) AS spans, any_value([head_start, head_end]) AS head,
           any_value(subject_id) AS subject, any_value(object_id) AS object, any_value(owner_id) AS owner,
           any_value(denied) AS denied
    FROM {concepts} WHERE {these} GROUP BY sample_id, concept_id"""
_BOXES: Final = """
    SELECT sample_id, concept_id, x0, y0, x1, y1, score FROM {boxes} WHERE {these}
    ORDER BY score DESC, sample_id, concept_id, x0, y0, x1, y1"""


class Place(NamedTuple):
    """Where the bytes of an image lie."""

    source: str
    member: str | None
    offset: int | None
    size: int | None


def jpeg(place: Place, side: int) -> bytes:
    """An image as a JPEG whose long side has at most `side` pixels; raises OSError, KeyError, ImageError."""
    image = decode(read_image_bytes(*place), max_pixels=ANY_PIXELS, min_side=1, max_side=side).image
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


BROKEN: Final = (
    OSError,
    KeyError,
    ValueError,
    ImageError,
)  # what `jpeg` raises of an image that is not there


def figures(
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[str, str],
    wanted: Sequence[tuple[str, str, str]],
    tags: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """The images (dataset, shard, key) with all that the page shows of them, in the order given, ready for JSON.

    tables: the SQL of each table's rows; with "negatives" there, captions bring theirs. tags: by sample id.
    Spans are characters (code points) of the caption, boxes 0..1 of the image.
    """
    if not wanted:
        return []
    pairs = ", ".join(f"({quote(shard)}, {quote(key)})" for _, shard, key in wanted)
    keys = ", ".join(sorted({quote(key) for _, _, key in wanted}))
    these = f"key IN ({keys}) AND (shard, key) IN ({pairs})"  # the first alone lets DuckDB pass over rows
    found: dict[tuple[str, str], dict[str, Any]] = {}
    captions: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for row in dicts(connection.execute(_SAMPLES.format(**tables, these=these))):
        figure = found.setdefault((row["shard"], row["key"]), _figure(row))
        caption = {name: row[name] for name in ("sample_id", "caption_id", "caption", "status", "error")}
        caption |= {"concepts": [], "negatives": []}
        figure["captions"].append(caption)
        figure["tags"] = sorted({*figure["tags"], *tags.get(row["sample_id"], ())})
        captions[row["sample_id"]] = figure, caption
    for row in dicts(connection.execute(_CONCEPTS.format(**tables, these=these))):
        captions[row["sample_id"]][1]["concepts"].append(_concept(row))
    for _, caption in captions.values():
        caption["concepts"].sort(key=lambda concept: concept["number"])
    phrases = {
        (sample, concept["number"]): concept["phrase"]
        for sample, (_, caption) in captions.items()
        for concept in caption["concepts"]
    }
    for row in dicts(connection.execute(_BOXES.format(**tables, these=these))):
        figure, caption = captions[row["sample_id"]]
        number = _number(row["concept_id"])
        corners = [row[name] for name in ("x0", "y0", "x1", "y1")]
        # Captions that ask for the same phrase have the same box: it is drawn once.
        drawn = (*corners, phrases.get((row["sample_id"], number)))
        box = figure["_boxes"].setdefault(drawn, {"corners": corners, "score": row["score"], "of": []})
        box["of"].append([figure["captions"].index(caption), number])
    if "negatives" in tables:
        kinds = list(NEGATIVE_KINDS)
        for row in dicts(connection.execute(f"SELECT sample_id, kind, caption FROM {tables['negatives']}")):
            if row["sample_id"] in captions and row["kind"] in kinds:
                captions[row["sample_id"]][1]["negatives"].append(
                    {"kind": row["kind"], "caption": row["caption"]}
                )
    shown = [found[shard, key] for _, shard, key in wanted if (shard, key) in found]
    for figure in shown:
        figure["boxes"] = list(figure.pop("_boxes", {}).values())
    return shown


def _figure(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("dataset", "shard", "key", "width", "height", "source", "member", "offset", "size")
    figure = {name: row[name] for name in names}
    figure |= {
        "id": f"{row['dataset']}/{row['shard']}/{row['key']}",
        "captions": [],
        "tags": [],
        "_boxes": {},
    }
    return figure | {"ok": row["status"] == OK}


def _concept(row: Mapping[str, Any]) -> dict[str, Any]:
    concept = {name: row[name] for name in ("kind", "lemma", "phrase", "spans", "head")}
    links = {name: row[name] and _number(row[name]) for name in ("subject", "object", "owner")}
    return concept | links | {"number": _number(row["concept_id"]), "denied": bool(row["denied"])}


def _number(concept: str) -> int:
    """A concept's number in its sample, by the schema."""
    return int(concept.rpartition("/")[2])
