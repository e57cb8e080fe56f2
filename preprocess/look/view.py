"""A page to look at: images with their boxes, captions with their concepts marked."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.pictures import ImageError, decode, read_image_bytes
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import ATTRIBUTE, OBJECT, OK, RELATION
from macco.pipeline.store import Store

SIDE = 480  # pixels of an image's long side on the page
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; background: #fafafa; color: #222 }
figure { display: inline-block; vertical-align: top; width: 480px; margin: 0 1.5em 2em 0 }
figure > div { position: relative } img { width: 100%; display: block }
svg { position: absolute; inset: 0; width: 100%; height: 100% }
.object { border-bottom: 2px solid #4363d8 } .attribute { background: #ffe9a8 } .relation { background: #cdeccd }
small { color: #777 }
"""


def write_page(store: Store, out: Path, *, where: str, limit: int, threshold: float) -> int:
    """Write the first `limit` images whose samples meet the SQL condition; return how many there were."""
    import duckdb

    connection = connect(store)
    columns = 'dataset, shard, key, source, member, "offset", size, status, error'
    try:
        cursor = connection.execute(
            f"SELECT {columns}, list(sample_id ORDER BY caption_id), list(caption ORDER BY caption_id) "
            f"FROM samples WHERE {where} GROUP BY {columns} ORDER BY dataset, shard, key LIMIT {limit}"
        )
        rows = cursor.fetchall()
    except duckdb.Error as error:
        raise UserError(f"DuckDB: {error}") from error
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
    legend = "".join(f"<p><span class={kind}>{kind}</span>" for kind in (OBJECT, ATTRIBUTE, RELATION))
    page = f"<!doctype html><meta charset=utf-8><title>{escape(store.url)}</title><style>{_STYLE}</style>"
    put_file(out, f"{page}<h1>{escape(store.url)}</h1>{legend}{''.join(figures)}".encode())
    return len(rows)


def _figure(
    row: tuple[Any, ...], concepts: dict[str, list[dict[str, Any]]], boxes: list[tuple[Any, ...]]
) -> str:
    dataset, shard, key, source, member, offset, size, status, error, ids, captions = row
    colours = {
        phrase: COLOURS[i % len(COLOURS)] for i, phrase in enumerate(dict.fromkeys(box[0] for box in boxes))
    }
    drawn = "".join(
        f'<rect x="{100 * x0:.2f}%" y="{100 * y0:.2f}%" width="{100 * (x1 - x0):.2f}%" height="{100 * (y1 - y0):.2f}%" '
        f'fill="none" stroke="{colours[phrase]}" stroke-width="2"><title>{escape(phrase)} {score:.2f}</title></rect>'
        for phrase, x0, y0, x1, y1, score in boxes
    )
    named = ", ".join(f'<b style="color:{colour}">{escape(phrase)}</b>' for phrase, colour in colours.items())
    texts = "".join(
        f"<p>{_marked(text or '', concepts.get(name, []))}</p>"
        for name, text in zip(ids, captions, strict=True)
    )
    problem = "" if status == OK else f"<p><b>{escape(status)}</b>: {escape(error or '')}</p>"
    picture = _picture(source, member, offset, size)
    return (
        f"<figure><div>{picture}<svg>{drawn}</svg></div><small>{escape(f'{dataset}/{shard}/{key}')}</small> {named}"
        f"{problem}{texts}</figure>"
    )


def _picture(source: str, member: str | None, offset: int | None, size: int | None) -> str:
    try:
        image = decode(read_image_bytes(source, member, offset, size), max_side=SIDE).image
    except (OSError, KeyError, ImageError) as error:
        return f"<p>no image: {escape(str(error))}</p>"
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'


def _marked(caption: str, concepts: list[dict[str, Any]]) -> str:
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
    return "".join(out)
