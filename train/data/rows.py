"""The rows of some pieces of the store, fetched by DuckDB and held as columns."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from macco.pipeline.cache import ImageCache
from macco.pipeline.commits import parts_of
from macco.pipeline.errors import UserError
from macco.pipeline.query import connect, reason
from macco.pipeline.schema import ATTRIBUTE, NEGATIVE_KINDS, NEGATIVES, OBJECT, PARAPHRASES, RELATION, UNITS
from macco.pipeline.store import Store
from macco.pipeline.views import Files, quote, scan
from macco.train.config import DataConfig
from macco.train.data.index import Index
from macco.train.data.masks import Grounded
from macco.train.data.selection import Selection

KINDS = (OBJECT, ATTRIBUTE, RELATION)
_NUMBER = "CAST(split_part({}, '/', -1) AS INTEGER)"  # of a concept within its sample, by the schema

_NONE = slice(0)
_CHANGED = "{} has changed since training began: start again, or resume once it is complete"

# A number for where an image lies: captions of one image have one.
_IMAGE = '(hash(s.source, s.member, s."offset") >> 1)::BIGINT'


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of what a caption says: an entity, or a relation with its ends."""

    kind: str
    text: str
    foils: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image-caption pair, its image still where it lies."""

    id: str
    shard: str
    caption: str
    image: int  # equal for captions of one image
    source: str
    member: str | None
    offset: int | None
    size: int | None
    concepts: list[Grounded]
    negatives: list[str | None]  # of each kind, as far as asked for
    regions: NDArray[np.float32]  # [K, 5]: all distinct boxes of the image, best first, with their scores
    units: list[Unit] = field(default_factory=list)
    siblings: list[str] = field(default_factory=list)  # other captions of the image
    paraphrases: list[str] = field(default_factory=list)  # of the caption, made elsewhere


class Rows:
    """The selected samples of some pieces: sample k is the k-th, pieces in the order given."""

    def __init__(
        self,
        samples: pa.Table,
        concepts: dict[str, Any],
        boxes: dict[str, Any],
        negatives: dict[tuple[int, int], str],
        kinds: int,
        regions: dict[str, Any] | None = None,
        units: dict[int, list[Unit]] | None = None,
        siblings: dict[int, list[str]] | None = None,
        paraphrases: dict[int, list[str]] | None = None,
    ) -> None:
        names = ("id", "shard", "caption", "image", "source", "member", "offset", "size")
        self._columns = {name: samples[name].combine_chunks() for name in names}
        self._by_slot: dict[str, dict[int, Any]] = {
            "units": units or {}, "siblings": siblings or {}, "paraphrases": paraphrases or {},
        }  # fmt: skip
        self._negatives = negatives
        self._kinds = kinds
        self._concepts = concepts
        self._boxes = boxes
        slots = np.arange(samples.num_rows + 1)
        self._concept_starts = np.searchsorted(concepts["slot"], slots)
        self._box_starts = np.searchsorted(boxes["slot"], slots)
        self._corners = np.stack([boxes[name] for name in ("x0", "y0", "x1", "y1")], 1)
        self._regions = np.empty((0, 5), np.float32)
        self._region_starts = np.zeros(len(slots), np.int64)
        if regions is not None:
            self._regions = np.stack([regions[name] for name in ("x0", "y0", "x1", "y1", "score")], 1)
            self._region_starts = np.searchsorted(regions["slot"], slots)

    def __getitem__(self, slot: int) -> Sample:
        values = {name: column[slot].as_py() for name, column in self._columns.items()}
        negatives = [self._negatives.get((slot, kind)) for kind in range(self._kinds)]
        first, last = self._region_starts[slot : slot + 2]
        regions = self._regions[first:last]
        values |= {name: of.get(slot, []) for name, of in self._by_slot.items()}
        return Sample(**values, concepts=self._grounded(slot), negatives=negatives, regions=regions)

    def _grounded(self, slot: int) -> list[Grounded]:
        first, last = self._box_starts[slot : slot + 2]
        corners = self._corners[first:last]
        own: dict[int, slice] = {}  # the boxes of each concept, which stand together
        for place, number in enumerate(self._boxes["number"][first:last].tolist()):
            own[number] = slice(own[number].start if number in own else place, place + 1)
        first, last = self._concept_starts[slot : slot + 2]
        columns = ("number", "kind", "phrase", "start", "end", "head_start", "head_end")
        found: dict[int, Grounded] = {}
        for number, kind, phrase, start, end, head_start, head_end in zip(
            *(self._concepts[name][first:last].tolist() for name in columns), strict=True
        ):
            spans: tuple[tuple[int, int], ...] = ((start, end),)
            if number in found:
                spans = found[number].spans + spans
            found[number] = Grounded(
                KINDS[kind], phrase, spans, (head_start, head_end), corners[own.get(number, _NONE)]
            )
        return list(found.values())


class Fetch:
    """Reads pieces of a store. Made in the process that uses it."""

    def __init__(
        self,
        data: DataConfig,
        index: Index,
        selection: Selection,
        negatives: int,
        box_score: float | None,
        *,
        units: bool = False,
        siblings: bool = False,
    ) -> None:
        """box_score: of the boxes that samples bring as regions; None: they bring none. units: they bring those.

        siblings: they bring the other captions of their image, as far as those are selected, and paraphrases.
        """
        self._store = Store.open(data.store).choose_boxes(data.detector)
        self._negatives = negatives
        self._box_score = box_score
        self._with_units, self._with_siblings = units, siblings
        self._index = index
        self._held = dict(zip(index.shards, index.files, strict=True))  # the file of each shard
        self._selection = selection
        self._cache = ImageCache.open(data.cache) if data.cache else None
        self._cached = self._cache.shards() if self._cache is not None else set()
        self._connection = connect(
            self._store,
            views=selection.views,
            memory="400MB",
            threads=1,
            sealed=True,
            beside=self._cache,
        )

    def __call__(self, pieces: Sequence[int], seed: int, epoch: int) -> Rows:
        """Fetch the samples of some pieces in an epoch. Raises UserError where they are not there any more."""
        try:
            return self._fetch(pieces, seed, epoch)
        except (
            duckdb.Error
        ) as error:  # files that were put together with others meanwhile: their rows are elsewhere
            held = self._store.commits().files
            if held == self._held:
                raise UserError(f"cannot read {self._store.url}: {reason(error)}") from error
            self._held = held
            return self._fetch(pieces, seed, epoch)

    def _fetch(self, pieces: Sequence[int], seed: int, epoch: int) -> Rows:
        rows = [self._index.rows(piece, seed, epoch) for piece in pieces]
        shards = [self._index.shards[self._index.shard[piece]] for piece in pieces]
        which = pa.DictionaryArray.from_arrays(
            np.repeat(np.arange(len(pieces), dtype=np.int32), [len(r) for r in rows]),
            pa.array(shards, pa.string()),
        )
        row = np.concatenate(rows)
        slot = np.arange(len(row), dtype=np.int32)
        chosen = pa.table({"shard": which.cast(pa.string()), "row": pa.array(row), "slot": pa.array(slot)})
        files = self._files(shards)
        store, do = self._store.url, self._connection
        do.register("_chosen", chosen)
        do.execute(
            f"CREATE OR REPLACE TEMP TABLE _samples AS SELECT * FROM {scan(store, 'samples', files)} "
            "JOIN _chosen USING (shard, row)"
        )
        samples = do.sql(f"{self._located(shards)} ORDER BY slot").to_arrow_table()
        if samples.num_rows != len(row):
            raise UserError(_CHANGED.format(store))
        own = "SELECT * FROM _samples"
        concepts = do.execute(
            f"SELECT slot, {_NUMBER.format('concept_id')} AS number, list_position({list(KINDS)}, kind) - 1 AS kind, "
            f'{_NUMBER.format("coalesce(owner_id, concept_id)")} AS phrase, start, "end", head_start, head_end '
            f"{self._selection.relation('concepts', own, files, self._store, self._held)} "
            f"WHERE {self._selection.all('concepts')} ORDER BY slot, number, part"
        ).fetchnumpy()
        boxes = do.execute(
            f"SELECT slot, {_NUMBER.format('concept_id')} AS number, x0, y0, x1, y1 "
            f"{self._selection.relation('boxes', own, files, self._store, self._held)} "
            f"WHERE {self._selection.all('boxes')} ORDER BY slot, number, x0, y0, x1, y1"
        ).fetchnumpy()
        wrong, regions = self._wrong(shards), self._regions(files)
        siblings, paraphrases = self._siblings(files), self._paraphrases(shards)
        units = self._units(shards)
        return Rows(samples, concepts, boxes, wrong, self._negatives, regions, units, siblings, paraphrases)

    def _files(self, shards: Collection[str]) -> dict[str, list[str] | None]:
        """The files of some shards, and which of their shards are wanted."""
        try:
            return parts_of(self._held, shards)
        except KeyError as error:
            raise UserError(_CHANGED.format(self._store.url)) from error

    def _regions(self, files: Files) -> dict[str, Any] | None:
        """The boxes of the samples' images, whichever caption they were found for."""
        if self._box_score is None:
            return None
        found: dict[str, Any] = self._connection.execute(
            f"SELECT slot, x0, y0, x1, y1, max(score) AS score FROM {self._store.scan('boxes', files, self._held)} "
            "JOIN (SELECT slot, dataset, shard, key FROM _samples) USING (dataset, shard, key) "
            "WHERE score >= ? GROUP BY ALL ORDER BY slot, score DESC, x0, y0, x1, y1",
            [self._box_score],
        ).fetchnumpy()
        return found

    def _wrong(self, shards: Sequence[str]) -> dict[tuple[int, int], str]:
        """Negative captions by slot and kind."""
        if not self._negatives:
            return {}
        kinds = list(NEGATIVE_KINDS[: self._negatives])
        found = self._connection.execute(
            f"SELECT slot, list_position({kinds}, kind) - 1, n.caption "
            f"FROM {scan(self._store.url, NEGATIVES, sorted(set(shards)))} n JOIN _samples USING (sample_id) "
            f"WHERE kind IN ({', '.join(map(quote, kinds))})"
        ).fetchall()
        return {(slot, kind): caption for slot, kind, caption in found}

    def _units(self, shards: Sequence[str]) -> dict[int, list[Unit]]:
        """Units by slot."""
        if not self._with_units:
            return {}
        rows = self._connection.execute(
            "SELECT slot, kind, text, list(foil ORDER BY foil_kind) FILTER (foil IS NOT NULL) "
            f"FROM {scan(self._store.url, UNITS, sorted(set(shards)))} JOIN _samples USING (sample_id) "
            "GROUP BY slot, unit, kind, text ORDER BY slot, unit"
        ).fetchall()
        found: dict[int, list[Unit]] = {}
        for slot, kind, text, foils in rows:
            found.setdefault(slot, []).append(Unit(kind, text, tuple(foils or ())))
        return found

    def _siblings(self, files: Files) -> dict[int, list[str]]:
        """The other captions of each slot's image."""
        if not self._with_siblings:
            return {}
        selected = (
            f"SELECT * FROM {scan(self._store.url, 'samples', files)} WHERE {self._selection.all('samples')}"
        )
        rows = self._connection.execute(
            f"SELECT slot, list(o.caption ORDER BY o.caption_id) FROM ({selected}) o "
            "JOIN _samples s USING (dataset, shard, key) WHERE o.caption_id <> s.caption_id GROUP BY slot"
        ).fetchall()
        return dict(rows)

    def _paraphrases(self, shards: Sequence[str]) -> dict[int, list[str]]:
        """Paraphrases of each slot's caption, where the store has any."""
        if not self._with_siblings or not self._store.exists(PARAPHRASES):
            return {}
        rows = self._connection.execute(
            "SELECT slot, list(p.caption ORDER BY p.caption) "
            f"FROM {scan(self._store.url, PARAPHRASES, sorted(set(shards)))} p JOIN _samples USING (sample_id) "
            "GROUP BY slot"
        ).fetchall()
        return dict(rows)

    def _located(self, shards: Sequence[str]) -> str:
        """SQL of the samples with where their images lie: in the cache, if they are there."""
        cached = sorted(set(shards) & self._cached)
        if self._cache is None or not cached:
            return (
                f'SELECT sample_id AS id, shard, caption, {_IMAGE} AS image, source, member, "offset", size '
                "FROM _samples s"
            )
        return (
            f"SELECT s.sample_id AS id, s.shard, s.caption, {_IMAGE} AS image, "
            "coalesce(c.file, s.source) AS source, s.member, "
            'coalesce(c.at, s."offset") AS "offset", coalesce(c.bytes, s.size) AS size '
            f"FROM _samples s LEFT JOIN {self._cache.sql(cached)} c "
            # Only what was made from this very image: a store may have been extracted anew.
            "ON c.shard = s.shard AND c.key = s.key AND c.source = s.source "
            'AND c."offset" IS NOT DISTINCT FROM s."offset"'
        )
