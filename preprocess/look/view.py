"""A page to look at: images with their boxes, captions with their concepts marked."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup, escape

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.pictures import ImageError, decode, read_image_bytes
from macco.pipeline.query import connect, dicts, reason
from macco.pipeline.readonly import conjuncts
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, TABLES
from macco.pipeline.store import Store

if TYPE_CHECKING:
    import duckdb

SIDE = 480  # pixels of an image's long side on the page
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")

_PAGE = """<!doctype html><meta charset=utf-8><title>{{ store }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; background: #fafafa; color: #222 }
figure { display: inline-block; vertical-align: top; width: 480px; margin: 0 1.5em 2em 0 }
figure > div { position: relative } img { width: 100%; display: block }
svg { position: absolute; inset: 0; width: 100%; height: 100% }
.object { border-bottom: 2px solid #4363d8 } .attribute { background: #ffe9a8 } .relation { background: #cdeccd }
small { color: #777 }
</style><h1>{{ store }}</h1>
{% for kind in kinds %}<p><span class={{ kind }}>{{ kind }}</span>{% endfor %}
{% for figure in figures %}
<figure><div>
{% if figure.jpeg %}<img src="data:image/jpeg;base64,{{ figure.jpeg }}">
{% else %}<p>no image: {{ figure.lost }}</p>{% endif %}
<svg>{% for box in figure.boxes %}
<rect x="{{ box.x }}%" y="{{ box.y }}%" width="{{ box.width }}%" height="{{ box.height }}%" fill="none"
 stroke="{{ figure.colours[box.phrase] }}" stroke-width="2"><title>{{ box.phrase }} {{ box.score }}</title></rect>
{% endfor %}</svg></div>
<small>{{ figure.name }}</small>
{% for phrase, colour in figure.colours.items() -%}
{{ ", " if not loop.first }}<b style="color:{{ colour }}">{{ phrase }}</b>
{%- endfor %}
{% if figure.status != "ok" %}<p><b>{{ figure.status }}</b>: {{ figure.error or "" }}</p>{% endif %}
{% for caption in figure.captions %}<p>{{ caption }}</p>{% endfor %}
</figure>
{% endfor %}
"""


def write_page(store: Store, out: Path, *, where: str, limit: int, threshold: float) -> int:
    """Write the first `limit` images whose samples meet the SQL condition; return how many there were.

    A condition that names columns of concepts or boxes is met by a sample that has one such concept or box.
    """
    connection = connect(store, sealed=True)
    columns = 'dataset, shard, key, source, member, "offset", size, status, error'
    rows = connection.execute(
        f"SELECT {columns}, list(sample_id ORDER BY caption_id), list(caption ORDER BY caption_id) "
        f"FROM {_meeting(connection, where)} GROUP BY {columns} ORDER BY dataset, shard, key LIMIT {limit}"
    ).fetchall()
    ids = [sample for row in rows for sample in row[-2]]
    concepts: dict[str, list[dict[str, Any]]] = {}
    query = 'SELECT * FROM concepts WHERE list_contains(?, sample_id) ORDER BY start, "end" DESC'
    for row in dicts(connection.execute(query, [ids])):
        concepts.setdefault(row["sample_id"], []).append(row)
    boxes: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    query = (
        "SELECT b.shard, b.key, c.phrase, b.x0, b.y0, b.x1, b.y1, max(b.score) FROM boxes b "
        "JOIN concepts c USING (concept_id) WHERE c.part = 0 AND b.score >= ? AND list_contains(?, b.sample_id) "
        "GROUP BY ALL ORDER BY 8 DESC"
    )
    for shard, key, *box in connection.execute(query, [threshold, ids]).fetchall():
        boxes.setdefault((shard, key), []).append(tuple(box))
    figures = [_figure(row, concepts, boxes.get((row[1], row[2]), [])) for row in rows]
    page = Environment(autoescape=True).from_string(_PAGE)
    kinds = (OBJECT, ATTRIBUTE, RELATION)
    put_file(out, page.render(store=store.url, kinds=kinds, figures=figures).encode())
    return len(rows)


def _meeting(connection: "duckdb.DuckDBPyConnection", where: str) -> str:
    """SQL of the samples that meet a condition; the coarsest table whose columns it is about is looked at."""
    import duckdb

    where = " AND ".join(f"({sql})" for sql in conjuncts(where)) or "true"
    ids = ", ".join(("sample_id", "dataset", "shard", "key", "caption_id"))
    concepts = f"samples LEFT JOIN concepts USING ({ids})"
    problem = ""
    for relation in ("samples", concepts, f"{concepts} LEFT JOIN boxes USING (concept_id, {ids})"):
        meeting = f"(FROM samples WHERE sample_id IN (SELECT sample_id FROM {relation} WHERE {where}))"
        try:
            connection.execute(f"EXPLAIN {meeting}").fetchall()
            return meeting
        except duckdb.Error as error:
            problem = reason(error)
    names = ", ".join(dict.fromkeys(name for schema in TABLES.values() for name in schema.names))
    raise UserError(f"--where {where!r}: DuckDB: {problem}; the columns are {names}")


def _figure(
    row: tuple[Any, ...], concepts: dict[str, list[dict[str, Any]]], boxes: list[tuple[Any, ...]]
) -> dict[str, Any]:
    dataset, shard, key, source, member, offset, size, status, error, ids, captions = row
    phrases = dict.fromkeys(box[0] for box in boxes)
    jpeg, lost = _jpeg(source, member, offset, size)
    return {
        "name": f"{dataset}/{shard}/{key}",
        "jpeg": jpeg,
        "lost": lost,
        "status": status,
        "error": error,
        "colours": {phrase: COLOURS[i % len(COLOURS)] for i, phrase in enumerate(phrases)},
        "boxes": [
            {
                "phrase": phrase,
                "score": f"{score:.2f}",
                "x": f"{100 * x0:.2f}",
                "y": f"{100 * y0:.2f}",
                "width": f"{100 * (x1 - x0):.2f}",
                "height": f"{100 * (y1 - y0):.2f}",
            }
            for phrase, x0, y0, x1, y1, score in boxes
        ],
        "captions": [
            _marked(text or "", concepts.get(name, [])) for name, text in zip(ids, captions, strict=True)
        ],
    }


def _jpeg(source: str, member: str | None, offset: int | None, size: int | None) -> tuple[str, str]:
    """A picture as base64, or why there is none."""
    try:
        image = decode(read_image_bytes(source, member, offset, size), max_side=SIDE).image
    except (OSError, KeyError, ImageError) as error:
        return "", str(error)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return base64.b64encode(data.getvalue()).decode(), ""


def _marked(caption: str, concepts: list[dict[str, Any]]) -> Markup:
    """The caption with its concepts as nested spans."""
    opening: dict[int, str] = {}
    closing: dict[int, str] = {}
    for concept in dict.fromkeys((c["kind"], c["start"], c["end"]) for c in concepts):
        kind, start, end = concept
        opening[start] = opening.get(start, "") + f"<span class={kind}>"
        closing[end] = closing.get(end, "") + "</span>"
    out = []
    for place in range(len(caption) + 1):
        out.append(closing.get(place, "") + opening.get(place, "") + escape(caption[place : place + 1]))
    return Markup("".join(out))
