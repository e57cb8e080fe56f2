"""How quick the page of a large store is: `python -m benchmarks.serve`. The store is drawn from a seed, without images.

Prints seconds until the server answers, until its index stands, and of each request as a browser would send it: the
first time (nothing is kept) and the second.
"""

import argparse
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import duckdb

from macco.pipeline.page.app import store_app
from macco.pipeline.page.gallery import Gallery
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from tests.support.pages import served

# Lemmas as unevenly common as words are: the i-th has about 1 / i of the first one's share.
_SAMPLES = """
    SELECT format('big/{shard}/{:08d}/{}', k, c) AS sample_id, 'big' AS dataset, '{shard}' AS shard,
           format('{:08d}', k) AS key, c::INT AS caption_id, (k * {captions} + c)::INT AS row,
           format('A {} {} is next to a {}.', 'red', 'thing' || k % 977, 'thing' || (k * 7 + c) % 911) AS caption,
           640 AS width, 480 AS height, 'none/{shard}.tar' AS source, format('{:08d}.jpg', k) AS member,
           (k * 4096)::BIGINT AS "offset", 4000::BIGINT AS size, k::UBIGINT AS dhash,
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
    {"at": 500_000},
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
    done = store.committed()
    for number in range(-(-samples // shard_size)):
        shard = f"{number:05}"
        if shard in done:
            continue
        size = min(shard_size, samples - number * shard_size) // captions
        given = {"shard": shard, "number": number, "images": size, "captions": captions}
        given |= {"objects": objects, "boxes": boxes}
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
    gallery = Gallery(store)
    gallery.start()
    with served(store_app(gallery, threshold=0.35)) as url:
        for name in ("api/store", "api/figures", "api/facets", "api/scores"):
            _get(url + name)
        print(f"first page: {time.perf_counter() - begun:.2f} s from nothing")
        while gallery.index.share < 1:
            time.sleep(0.1)
        index = gallery.index
        print(
            f"index: {time.perf_counter() - begun:.1f} s; {len(index):,} images, {len(index.box_level):,} boxes"
        )
        for query in QUERIES:
            for name in ("figures", "facets", "scores"):
                begun = time.perf_counter()
                _get(f"{url}api/{name}?{urlencode(query)}")
                print(f"{name:8} {time.perf_counter() - begun:.2f} s  {urlencode(query)}")
    gallery.close()


def _get(url: str) -> None:
    with urllib.request.urlopen(url) as answer:
        answer.read()


if __name__ == "__main__":
    main()
