"""How quick the page of a large store is: `python -m benchmarks.serve`. The store is drawn from a seed; all its images
are one file.

Starts `macco-prep serve` as a user does, and prints seconds since then: until it says its address, until all that a
browser asks for at first is there (the page with style and scripts, what it shows as JSON, its images, one after the
other), until the index stands. Then those of each request: the first time, when nothing is kept, and the second.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import duckdb
import numpy as np
from PIL import Image

from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store

# Lemmas as unevenly common as words are: the i-th has about 1 / i of the first one's share.
_SAMPLES = """
    SELECT format('big/{shard}/{:08d}/{}', k, c) AS sample_id, 'big' AS dataset, '{shard}' AS shard,
           format('{:08d}', k) AS key, c::INT AS caption_id, (k * {captions} + c)::INT AS row,
           format('A {} {} is next to a {}.', 'red', 'thing' || k % 977, 'thing' || (k * 7 + c) % 911) AS caption,
           640 AS width, 480 AS height, '{picture}' AS source, NULL AS member,
           NULL::BIGINT AS "offset", NULL::BIGINT AS size, k::UBIGINT AS dhash,
           CASE WHEN hash(k, {number}) % 100 = 0 THEN 'image_corrupt' ELSE 'ok' END AS status, NULL AS error
    FROM range({images}) a(k), range({captions}) b(c)"""
_CONCEPTS = """
    SELECT sample_id || '/' || n AS concept_id, sample_id, dataset, shard, key, caption_id,
           CASE WHEN n < {objects} THEN 'object' WHEN n < {objects} + 2 THEN 'attribute' ELSE 'relation' END AS kind,
           0::TINYINT AS part, caption[3:5] AS text,
           'lemma' || (5000 ** ((hash(sample_id, n) % 100000) / 100000.0))::INT AS lemma, 2 AS start, 5 AS "end",
           'red' AS head, 2 AS head_start, 5 AS head_end, 'NOUN' AS pos,
           CASE WHEN n >= {objects} + 2 THEN sample_id || '/0' END AS subject_id,
           CASE WHEN n >= {objects} + 2 THEN sample_id || '/1' END AS object_id,
           CASE WHEN n >= {objects} AND n < {objects} + 2 THEN sample_id || '/' || (n - {objects}) END AS owner_id,
           'red thing' AS phrase, false AS denied
    FROM samples, range({objects} + 3) t(n) WHERE status = 'ok'"""
_BOXES = """
    SELECT concept_id, sample_id, dataset, shard, key, caption_id, x AS x0, y AS y0, x + 0.2 AS x1, y + 0.3 AS y1,
           0.05 + 0.9 * ((h >> 32) % 10000) / 10000.0 AS score
    FROM (SELECT *, hash(concept_id, b) AS h, (h % 800) / 1000.0 AS x, ((h >> 16) % 700) / 1000.0 AS y
          FROM concepts, range({boxes}) t(b) WHERE kind = 'object')"""

QUERIES = (
    {},
    {"at": "half"},
    {"kind": "object"},
    {"concept": "object:lemma7", "score": "0.5"},
    {"status": "ok", "score": "0.5", "sort": "score"},
    {"sort": "random", "seed": "3"},
    {"shard": "00007"},
    {"where": "caption LIKE '%thing12 %'"},
    {"where": "lemma = 'lemma7'"},
    {"where": "lemma = 'lemma7' AND score > 0.9"},
)


def write(folder: Path, samples: int, captions: int, shard_size: int, objects: int, boxes: int) -> Store:
    """A store of `samples` captions, `captions` an image, each with `objects` objects of `boxes` boxes."""
    store = Store.create(str(folder), {"made": "for benchmarks/serve.py", "samples": samples})
    done, picture = store.committed(), folder.absolute().with_name(f"{folder.name}.jpg")
    _picture(picture)
    for number in range(-(-samples // shard_size)):
        shard = f"{number:05}"
        if shard in done:
            continue
        size = min(shard_size, samples - number * shard_size) // captions
        given = {"shard": shard, "number": number, "images": size, "captions": captions}
        given |= {"objects": objects, "boxes": boxes, "picture": str(picture).replace("'", "''")}
        with duckdb.connect() as connection:
            found = {}
            for name, sql in (("samples", _SAMPLES), ("concepts", _CONCEPTS), ("boxes", _BOXES)):
                # The braces of format() are its own.
                text = sql.replace("{:08d}", "\0").replace("{}", "\1")
                text = text.format(**given).replace("\0", "{:08d}").replace("\1", "{}")
                connection.execute(f"CREATE TABLE {name} AS {text}")
                names = ", ".join(f'"{column}"' for column in TABLES[name].names)
                found[name] = (
                    connection.sql(f"SELECT {names} FROM {name}").to_arrow_table().cast(TABLES[name])
                )
        record = {"shard": shard, "dataset": "big", "input": {"url": f"none/{shard}.tar"}, "seconds": {}}
        store.commit(shard, found, record | {name: table.num_rows for name, table in found.items()})
    return store


def main() -> None:
    """Make the store if it is not there, serve it, and time requests as a browser sends them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("runs/serve-store"))  # git does not see it
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--captions", type=int, default=1, help="Of an image.")
    parser.add_argument("--boxes", type=int, default=3, help="Of an object; a caption has four objects.")
    given = parser.parse_args()
    store = write(given.store, given.samples, given.captions, 10_000, 4, given.boxes)
    begun = time.perf_counter()

    def said(what: str) -> None:
        print(f"{time.perf_counter() - begun:6.2f} s  {what}", flush=True)

    print("since the command was started:")
    with _served(store.url) as url:
        said("the command has said its address")
        page = _get(url).decode()
        for name in re.findall(r'(?:href|src)="([\w.]+\.(?:css|js))"', page):
            _get(url + name)
        said("the page itself, its style and scripts")
        first = [json.loads(_get(f"{url}api/{name}")) for name in ("store", "figures", "facets", "scores")]
        said("what it shows, as JSON: store, figures, facets, scores")
        figures = first[1]["figures"]
        for figure in figures:
            _get(f"{url}image?{urlencode({'id': figure['id'], 'side': 480})}")
        said(f"its {len(figures)} images, one after the other: all of the first page")
        while (facets := json.loads(_get(f"{url}api/facets")))["share"] < 1:
            time.sleep(0.2)
        boxes = json.loads(_get(f"{url}api/scores"))["boxes"][0]
        said(f"its index stands: {facets['of']:,} images, {boxes:,} boxes")
        print("each request, the first time and the second:")
        for query in QUERIES:
            query = {name: facets["of"] // 2 if value == "half" else value for name, value in query.items()}
            for name in ("figures", "facets", "scores"):
                took = [_seconds(f"{url}api/{name}?{urlencode(query)}") for _ in range(2)]
                print(f"{name:8} {took[0]:5.2f} s {took[1]:5.2f} s  {urlencode(query)}")


@contextmanager
def _served(store: str) -> Iterator[str]:
    """The address that `macco-prep serve` says."""
    command = [sys.executable, "-m", "macco.preprocess", "serve", store, "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # as to a terminal
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()


def _picture(path: Path) -> None:
    """A JPEG of 640 x 480 of about the bytes that a photo has."""
    if not path.exists():
        spots = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
        Image.fromarray(spots).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)


def _seconds(url: str) -> float:
    begun = time.perf_counter()
    _get(url)
    return time.perf_counter() - begun


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        found: bytes = answer.read()
        return found


if __name__ == "__main__":
    main()
