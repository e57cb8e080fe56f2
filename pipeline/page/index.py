"""What the page filters, counts and sorts by, as arrays in memory: filled shard by shard while it is looked at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from macco.pipeline.page.tables import Tables
from macco.pipeline.schema import ATTRIBUTE, OBJECT, RELATION, Status
from macco.pipeline.store import Store
from macco.pipeline.views import GROUNDS

KINDS: Final = (OBJECT, ATTRIBUTE, RELATION)
STATUSES: Final = tuple(Status)
SPLITS: Final = ("train", "restval", "val", "validation", "dev", "test")  # what a key may begin with
AT_ONCE: Final = 16  # shards in one query

Mask = NDArray[np.bool_]

# The least score is 0.00: 1 where a box has that, 2 from 0.01 on, ... 101 from 1.00 on. 0 is left for no box at all.
_LEVEL: Final = """
    least(greatest(1 + round(score * 100)::INT - (score < (round(score * 100) / 100)::FLOAT)::INT, 1), 101)::UTINYINT"""

_SQL: Final = f"""
    CREATE OR REPLACE TEMP TABLE found AS
        SELECT (row_number() OVER (ORDER BY shard, first) - 1 + {{base}})::INT AS image, *
        FROM (SELECT dataset, shard, key, min(row) AS first, count(*)::INT AS captions,
                     bit_or((1 << (list_position({[str(one) for one in STATUSES]}, status) - 1))::UINTEGER)
                         AS statuses
              FROM {{samples}} GROUP BY ALL);
    CREATE OR REPLACE TEMP TABLE grounds AS
        SELECT concept_id, list(level) AS levels, max(level) AS level, max(score) AS score
        FROM (SELECT concept_id, score, {_LEVEL} AS level FROM {{boxes}}) GROUP BY concept_id;
    CREATE OR REPLACE TEMP TABLE named AS
        SELECT image, kind, lemma, coalesce(level, 0) AS level, score,
               CASE kind WHEN '{OBJECT}' THEN levels END AS levels
        FROM (SELECT shard, key, kind, lemma, unnest({GROUNDS}) AS object FROM {{concepts}} WHERE part = 0) c
        JOIN found USING (shard, key) LEFT JOIN grounds ON grounds.concept_id = c.object"""


@dataclass(frozen=True)
class Index:
    """Images, and what can be asked of them. Image i is the i-th of the store: shards by name, their rows in order."""

    share: float  # of the store's shards that are in
    shards: tuple[str, ...]
    datasets: tuple[str, ...]  # of each shard
    starts: tuple[int, ...]  # each shard's first image; one more at the end
    keys: tuple[pa.Array, ...]  # of each shard's images
    captions: NDArray[np.int32]  # [images]: how many
    statuses: NDArray[np.uint32]  # [images]: a bit for each of STATUSES
    splits: NDArray[np.int8]  # [images]: place in SPLITS, -1 for none
    scores: NDArray[np.float32]  # [images]: the best box's, -1 for none
    terms: tuple[tuple[str, str], ...]  # kind and lemma, by number
    # Each image and term of it once, images in order, with the best level and score of its boxes: [pairs]
    pair_image: NDArray[np.int32]
    pair_term: NDArray[np.int32]
    pair_level: NDArray[np.uint8]
    pair_score: NDArray[np.float32]  # -1 for no box
    # Boxes of objects: [boxes]
    box_image: NDArray[np.int32]
    box_term: NDArray[np.int32]
    box_level: NDArray[np.uint8]

    def __len__(self) -> int:
        """Number of images."""
        return self.starts[-1]

    def place(self, image: int) -> tuple[str, str, str]:
        """Dataset, shard and key of an image."""
        shard = int(np.searchsorted(self.starts, image, "right")) - 1
        return self.datasets[shard], self.shards[shard], self.keys[shard][image - self.starts[shard]].as_py()

    def find(self, name: str) -> int | None:
        """The number of the image dataset/shard/key, if it is in."""
        for at in (i for i, letter in enumerate(name) if letter == "/"):
            shard = self._shard.get(name[:at])
            if shard is not None and (row := pc.index(self.keys[shard], name[at + 1 :]).as_py()) >= 0:
                return int(self.starts[shard] + row)
        return None

    @cached_property
    def _shard(self) -> dict[str, int]:
        both = zip(self.datasets, self.shards, strict=True)
        return {f"{dataset}/{shard}": number for number, (dataset, shard) in enumerate(both)}

    def table(self) -> pa.Table:
        """Of all images: shard, key, image."""
        sizes = np.diff(self.starts)
        shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        names = pa.DictionaryArray.from_arrays(shard, pa.array(self.shards, pa.string()))
        keys = pa.chunked_array(self.keys, pa.string())
        return pa.table({"shard": names, "key": keys, "image": np.arange(len(self), dtype=np.int32)})


def nothing() -> Index:
    """An index before the first shard."""
    numbers: dict[str, type] = {"captions": np.int32, "statuses": np.uint32, "splits": np.int8}
    numbers |= {"scores": np.float32, "pair_score": np.float32}
    for what in ("pair", "box"):
        numbers |= {f"{what}_image": np.int32, f"{what}_term": np.int32, f"{what}_level": np.uint8}
    none: dict[str, Any] = {name: np.zeros(0, kind) for name, kind in numbers.items()}
    return Index(share=0.0, shards=(), datasets=(), starts=(0,), keys=(), terms=(), **none)


def fill(store: Store, connection: duckdb.DuckDBPyConnection) -> Iterator[Index]:
    """Read a store, a few shards more in each index that is yielded; the last has them all."""
    tables, index = Tables(store), nothing()
    shards = sorted(store.committed())
    size, done = 1, 0  # the first is there in no time
    while done < len(shards):
        some = shards[done : done + size]
        size, done = min(2 * size, AT_ONCE), done + len(some)
        index = _grown(index, connection, tables, some, done / len(shards))
        yield index
    if not shards:
        yield replace(index, share=1.0)


def _grown(
    index: Index, connection: duckdb.DuckDBPyConnection, tables: Tables, shards: Sequence[str], share: float
) -> Index:
    base = len(index)
    for statement in _SQL.format(base=base, **tables.of(shards)).split(";\n"):
        connection.execute(statement)
    images = connection.sql("FROM found ORDER BY image").to_arrow_table()
    rows = connection.execute("SELECT DISTINCT kind, lemma FROM named ORDER BY ALL").fetchall()
    terms = tuple(dict.fromkeys((*index.terms, *rows)))
    numbers = {
        name: pa.array([term[i] for term in terms], pa.string()) for i, name in enumerate(("kind", "lemma"))
    }
    connection.register("terms", pa.table(numbers | {"term": np.arange(len(terms), dtype=np.int32)}))
    pairs = connection.execute(
        "SELECT image, term, max(level) AS level, max(score) AS score FROM named JOIN terms USING (kind, lemma) "
        "GROUP BY image, term ORDER BY image, term"
    ).fetchnumpy()
    boxes = connection.execute(
        "SELECT image, term, unnest(levels) AS level FROM named JOIN terms USING (kind, lemma)"
    ).fetchnumpy()
    scores, best = (
        np.full(images.num_rows, -1, np.float32),
        np.ma.filled(pairs["score"], -1).astype(np.float32),
    )
    np.maximum.at(scores, pairs["image"] - base, best)
    # A shard that holds nothing has no rows.
    sizes = {one["values"]: one["counts"] for one in pc.value_counts(images["shard"]).to_pylist()}
    starts = base + np.cumsum([0, *(sizes.get(shard, 0) for shard in shards)])
    own = [images.slice(a - base, b - a) for a, b in pairwise(starts)]
    first = pc.list_element(pc.split_pattern(images["key"], "/", max_splits=1), 0)
    splits = pc.fill_null(pc.index_in(first, pa.array(SPLITS)), -1)

    def more(name: str, new: Any) -> Any:
        old = getattr(index, name)
        return np.concatenate([old, np.asarray(new).astype(old.dtype)])

    return Index(
        share=share,
        shards=(*index.shards, *shards),
        datasets=(*index.datasets, *(str(rows["dataset"][0]) if rows.num_rows else "" for rows in own)),
        starts=(*index.starts, *starts[1:].tolist()),
        keys=(*index.keys, *(rows["key"].combine_chunks() for rows in own)),
        captions=more("captions", images["captions"]),
        statuses=more("statuses", images["statuses"]),
        splits=more("splits", splits),
        scores=more("scores", scores),
        terms=terms,
        pair_image=more("pair_image", pairs["image"]),
        pair_term=more("pair_term", pairs["term"]),
        pair_level=more("pair_level", pairs["level"]),
        pair_score=more("pair_score", best),
        box_image=more("box_image", boxes["image"]),
        box_term=more("box_term", boxes["term"]),
        box_level=more("box_level", boxes["level"]),
    )
