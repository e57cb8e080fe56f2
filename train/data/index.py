"""The training set, resolved once: which rows of which shards, one bit a row."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.views import scan
from macco.train.data.selection import LEVELS, Level, Selection

ROWS: Final = 100_000  # samples in one query, in whole files: bounds its memory
IMAGE: Final = ("dataset", "shard", "key")  # what names an image of a store
PIECE: Final = 8192  # rows; larger shards are shuffled and fetched in pieces


_NAMES: Final[dict[Level, str]] = {
    "samples": "samples",
    "concepts": "spans of concepts",
    "boxes": "boxes",
}


@dataclass(frozen=True)
class Index:
    """The selected rows. A piece is about PIECE successive rows of a shard; pieces in store order.

    Sample i of the set is the i-th selected row, pieces and rows in order; with `heads` it is the i-th image, of whose
    selected rows each epoch shows one.
    """

    shards: tuple[str, ...]
    files: tuple[str, ...]  # of each shard: stem of the Parquet files that hold it
    bits: NDArray[np.uint8]  # one bit for each row of each shard, np.packbits
    first_bit: NDArray[np.int64]  # [pieces]
    shard: NDArray[np.int32]  # [pieces]: place in `shards`
    first_row: NDArray[np.int32]  # [pieces]: its first row's number in the shard
    starts: NDArray[np.int64]  # [pieces + 1]: sample number of its first selected row
    fingerprint: str
    heads: NDArray[np.uint8] | None = None  # one bit for each row: the first selected one of its image
    excluded: int = 0  # samples that were selected, but for a list of images to leave out
    rows_of: str = ""  # a digest of how many rows each shard has in each table

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.starts[-1])

    def rows(self, piece: int, seed: int, epoch: int) -> NDArray[np.int32]:
        """Row numbers, within its shard, of the samples of a piece in an epoch."""
        rows: NDArray[np.int32] = np.flatnonzero(self._bits(self.bits, piece)).astype(np.int32)
        if self.heads is not None:
            heads = np.flatnonzero(self._bits(self.heads, piece))
            starts = np.searchsorted(rows, heads)
            counts = np.diff(starts, append=len(rows))
            # Whole numbers below 2^31, not shares of 1: exact for any count.
            drawn = np.random.default_rng((seed, epoch, 2, piece)).integers(2**31, size=len(heads))
            rows = rows[starts + drawn % counts]
        rows += self.first_row[piece]
        return rows

    def _bits(self, packed: NDArray[np.uint8], piece: int) -> NDArray[np.uint8]:
        first = int(self.first_bit[piece])
        last = int(self.first_bit[piece + 1]) if piece + 1 < len(self.first_bit) else self.size
        bits: NDArray[np.uint8] = np.unpackbits(packed[first // 8 : -(-last // 8)])[first % 8 :][
            : last - first
        ]
        return bits

    @property
    def size(self) -> int:
        """Rows of the store's shards, selected or not."""
        return 8 * len(self.bits)  # padded with 0


def build(
    store: Store,
    selection: Selection,
    log: Callable[[str], None],
    *,
    one_caption: bool = False,
    exclude: str = "",
) -> Index:
    """Resolve a selection, logging what each clause leaves.

    one_caption: samples are images, and each epoch has one caption of each. Captions of an image are those that
    follow each other in a shard, as extraction writes them. exclude: Parquet file of images to leave out.

    Raises UserError if no sample is left, or none of the images to leave out is in the store.
    """
    unwanted = read_images(exclude) if exclude else None
    with connect(store, views=selection.views, memory="2GB", sealed=True) as connection:
        commits = store.commits()
        held = commits.core.filter(pc.greater(commits.core["samples"], 0))
        shards, files, sizes = held["shard"].to_pylist(), held["file"].to_pylist(), held["samples"].to_numpy()
        begins = np.concatenate([[0], np.cumsum(sizes)])
        within: dict[str, list[int]] = defaultdict(list)  # the shards of each file
        for place, file in enumerate(files):
            within[file].append(place)
        numbers = {"shard": pa.array(shards, pa.string()), "first": pa.array(begins[:-1], pa.int64())}
        connection.register("_shards", pa.table(numbers))
        selected = np.zeros(begins[-1], np.bool_)
        images = np.zeros(begins[-1], np.bool_) if one_caption else None  # the first row of each
        barred, met = np.zeros(begins[-1], np.bool_), 0
        if unwanted is not None:
            connection.register("_unwanted", unwanted)
        counts = {level: np.zeros(len(selection.at(level)) + 1, np.int64) for level in LEVELS}
        try:
            for names in _parts(files, sizes):
                part = commits.parts(names)
                samples = f"SELECT * FROM {scan(store.url, 'samples', part)} SEMI JOIN _shards USING (shard)"
                wanted = f"{samples} WHERE {selection.all('samples')}"
                whole = False  # all samples of these files are there, and wanted
                for level in LEVELS:
                    of = samples if level == "samples" else wanted
                    rows = selection.counted(level, of, part, store, commits.files, whole=whole)
                    found = connection.execute(f"SELECT {_counts(selection.at(level))} {rows}").fetchone()
                    counts[level] += found
                    if level == "samples" and found is not None:
                        expected = sum(sizes[shard] for name in names for shard in within[name])
                        whole = bool(found[0] == found[-1] == expected)
                level, condition = selection.survivors()
                if whole and level == "samples" and images is None and unwanted is None:
                    for shard in (shard for name in names for shard in within[name]):
                        selected[begins[shard] : begins[shard + 1]] = True
                    continue
                rows = selection.relation(level, wanted, part, store, commits.files)
                sql = f'SELECT DISTINCT "first" + row AS place {rows} JOIN _shards USING (shard) WHERE {condition}'
                selected[connection.execute(sql).fetchnumpy()["place"]] = True
                if unwanted is not None:
                    found = connection.execute(_BARRED.format(samples=samples)).fetchnumpy()
                    barred[found["place"]] = True
                    met += len(set(found["image"].tolist()))
                if images is not None:
                    images[connection.execute(_IMAGES.format(samples=samples)).fetchnumpy()["place"]] = True
        except duckdb.Error as error:
            raise UserError(f"--where: DuckDB: {str(error).splitlines()[0]}") from error
    for level in LEVELS:
        log(f"{_NAMES[level]}: {counts[level][0]:,}")
        for sql, left in zip(selection.at(level), counts[level][1:], strict=True):
            if sql != "true":
                log(f"  {sql} leaves {left:,}")
    dropped = int((selected & barred).sum())
    if unwanted is not None:
        _say_barred(exclude, unwanted.num_rows, met, dropped, store.url, log)
        selected &= ~barred
    total = int(selected.sum())
    log(
        f"training set: {total:,} samples"
        + (f" (keep = {selection.keep})" if selection.keep != "all" else "")
    )
    heads = None if images is None else _heads(selected, images)
    if heads is not None:
        log(f"  of {int(heads.sum()):,} images: one caption of each in an epoch")
    if not total:
        raise UserError(f"no sample of {store.url} is left: loosen --where, or look at: macco-prep status")
    known = repr(selection) + (f" boxes of {store.boxes_of}" if store.boxes_of else "")
    index = _pieces(shards, files, sizes, selected, heads, known)
    return replace(index, excluded=dropped, rows_of=digest(commits.core.drop_columns("file").to_pydict()))


# The rows of images that are to be left out, and which of these each is.
_BARRED: Final = """
    SELECT "first" + row AS place, _unwanted.number AS image
    FROM ({samples}) JOIN _shards USING (shard) JOIN _unwanted USING (dataset, shard, key)"""


def read_images(path: str) -> pa.Table:
    """The images that a Parquet file names, each once: dataset, shard, key and a number.

    Raises UserError where there is no such file, or it names none.
    """
    try:
        found = pq.read_table(path, columns=list(IMAGE)).cast(
            pa.schema([(name, pa.string()) for name in IMAGE])
        )
    except FileNotFoundError as error:
        raise UserError(f"no {path}: make it with macco-train audit --out {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is no list of images (Parquet with {', '.join(IMAGE)}), as macco-train audit --out writes it: "
            f"{str(error).splitlines()[0]}"
        ) from error
    found = found.group_by(list(IMAGE)).aggregate([])
    if not found.num_rows:
        raise UserError(f"{path} names no image: audit found none, leave --exclude out")
    return found.append_column("number", pa.array(range(found.num_rows), pa.int64()))


def _say_barred(
    path: str, named: int, met: int, dropped: int, store: str, log: Callable[[str], None]
) -> None:
    if not met:
        raise UserError(
            f"none of the {named:,} images of {path} is in {store}: was it made of another store?"
        )
    log(f"excluded by {path}: {dropped:,} samples; of its {named:,} images {met:,} are in the store")


# The rows at which another image begins.
_IMAGES: Final = """
    SELECT "first" + row AS place FROM ({samples}) JOIN _shards USING (shard)
    QUALIFY lag(key) OVER (PARTITION BY shard ORDER BY row) IS DISTINCT FROM key"""


def _heads(selected: NDArray[np.bool_], images: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The first selected row of each image that has any."""
    places = np.flatnonzero(selected)
    image = np.cumsum(images, dtype=np.int64)[places]
    heads = np.zeros_like(selected)
    heads[places[np.diff(image, prepend=-1) > 0]] = True
    return heads


def _parts(files: list[str], sizes: NDArray[np.int64]) -> Iterator[list[str]]:
    """The files, a few at a time: of about ROWS samples together."""
    rows: Counter[str] = Counter()
    for file, size in zip(files, sizes.tolist(), strict=True):
        rows[file] += size
    ends = np.cumsum(list(rows.values())) // ROWS
    for _, part in groupby(zip(rows, ends.tolist(), strict=True), key=lambda one: one[1]):
        yield [file for file, _ in part]


def _counts(clauses: list[str]) -> str:
    """SQL that counts all rows, those that the first clause leaves, the first two, ..."""
    sofar = [" AND ".join(f"({sql})" for sql in clauses[: n + 1]) for n in range(len(clauses))]
    return ", ".join(["count(*)", *(f"count(*) FILTER (WHERE {sql})" for sql in sofar)])


def digest(known: object, more: bytes = b"") -> str:
    """A short name for what `repr` says of something, and further bytes."""
    return hashlib.sha256(str(known).encode() + more).hexdigest()[:16]


def _pieces(
    shards: list[str],
    files: list[str],
    sizes: NDArray[np.int64],
    selected: NDArray[np.bool_],
    heads: NDArray[np.bool_] | None,
    selection: str,
) -> Index:
    per_shard = -(-sizes // PIECE)
    shard = np.repeat(np.arange(len(shards)), per_shard)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    within = np.arange(len(shard)) - np.repeat(np.cumsum(per_shard) - per_shard, per_shard)
    first_bit = begins[shard] + within * PIECE
    if heads is not None:  # an image lies in one piece: each begins where an image does
        places = np.append(np.flatnonzero(heads), len(heads))
        moved = np.where(within > 0, places[np.searchsorted(places, first_bit)], first_bit)
        first_bit, which = np.unique(
            np.where(moved < begins[shard + 1], moved, begins[shard]), return_index=True
        )
        shard = shard[which]
    first_row = first_bit - begins[shard]
    counted = selected if heads is None else heads
    counts = np.add.reduceat(counted, first_bit, dtype=np.int64)
    bits = np.packbits(selected)
    known = repr((shards, sizes.tolist(), selection) + (() if heads is None else ("one caption",)))
    return Index(
        tuple(shards),
        tuple(files),
        bits,
        first_bit,
        shard.astype(np.int32),
        first_row.astype(np.int32),
        np.concatenate([[0], np.cumsum(counts)]),
        digest(known, bits.tobytes()),
        None if heads is None else np.packbits(heads),
    )
