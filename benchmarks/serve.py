"""How quick the page of a large store is: `python -m benchmarks.serve`. The store is drawn from a seed, without images.

Prints seconds until the server answers, until its index stands, and of each request as a browser would send it: the
first time (nothing is kept) and the second.
"""

from pathlib import Path

import duckdb

from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store

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
