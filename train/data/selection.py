"""What to train on, as SQL: clauses over samples, concepts and boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import duckdb
import pyarrow as pa

from macco.pipeline.errors import UserError
from macco.pipeline.readonly import conjuncts, seal
from macco.pipeline.schema import BOXES, CONCEPTS, OK, SAMPLES, TABLES
from macco.pipeline.store import Store
from macco.pipeline.tags import TAGS
from macco.pipeline.views import GROUNDS, Files, quote, scan, words
from macco.train.config import MaskConfig
from macco.train.data.masks import masked_kinds

Level = Literal["samples", "concepts", "boxes"]
Held = Mapping[str, str]  # the file of each shard
LEVELS: Final[tuple[Level, ...]] = ("samples", "concepts", "boxes")

_FIELDS = {field.name: field for schema in (SAMPLES, CONCEPTS, BOXES) for field in schema}
_SAMPLE = list(SAMPLES.names)
_CONCEPT = [name for name in CONCEPTS.names if name not in _SAMPLE]
_OWN: Final = {"concepts": CONCEPTS, "boxes": BOXES}
_BOX = [name for name in BOXES.names if name not in (*_SAMPLE, *_CONCEPT)]


@dataclass(frozen=True)
class Clause:
    """One condition of a WHERE, and what it drops: samples, concepts or boxes."""

    sql: str
    level: Level
    mixed: bool = False  # drops boxes by what concept they belong to
    # The columns of its level's own table are enough for it. Not in `repr`, of which a training set's name is made.
    alone: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Selection:
    """The conditions on a training set; each acts on the finest thing whose columns it names.

    A clause that names a box's columns (x0, y0, x1, y1, score) drops boxes, else one that names a concept's
    (kind, lemma, head, ...) drops concepts, else it drops samples. Samples and concepts are not dropped for
    having nothing left, unless `keep` asks for it.
    """

    clauses: tuple[Clause, ...]
    kinds: tuple[str, ...]  # the kinds of concepts that masks are made of
    keep: Literal["all", "concept", "box"] = "all"  # samples with any concept of `kinds`, or any box of one
    denied: bool = field(default=False, repr=False)  # whether concepts that captions deny count

    @classmethod
    def of(cls, where: str, masks: MaskConfig, keep: Literal["all", "concept", "box"] = "all") -> "Selection":
        """Take a WHERE apart at its top-level ANDs. Raises UserError where DuckDB cannot understand it."""
        if keep not in ("all", "concept", "box"):
            raise UserError(f"keep is {keep!r}: choose all, concept or box")
        clauses = [
            Clause(f"status = '{OK}'", "samples"),
            Clause(f"score >= {masks.box_score}", "boxes", alone=True),
        ]
        with duckdb.connect() as connection:
            for name, schema in (TABLES | {"tags": TAGS}).items():
                connection.register(name, schema.empty_table())
            seal(connection)
            clauses += [_clause(connection, sql) for sql in conjuncts(where)]
        ordered = sorted(clauses, key=lambda clause: LEVELS.index(clause.level))
        return cls(tuple(ordered), masked_kinds(masks), keep, masks.denied)

    @property
    def drops_by_boxes(self) -> bool:
        """Whether which samples or concepts stay depends on the store's boxes."""
        return self.keep == "box" or len(self.at("boxes")) > 1  # than the masks' own

    @property
    def views(self) -> list[str]:
        """The store's tables that conditions name beside their own rows: who asks them needs their views."""
        asked = words(" ".join(clause.sql for clause in self.clauses))
        return [name for name in TABLES if name in asked]

    def at(self, level: Level) -> list[str]:
        """The conditions at one level, at least one."""
        return [clause.sql for clause in self.clauses if clause.level == level] or ["true"]

    def relation(self, level: Level, samples: str, files: Files, store: Store, held: Held) -> str:
        """SQL of the rows at a level, all columns, before that level's own conditions.

        `samples` is the SQL of the samples wanted; `files` are the store's Parquet files that hold
        them, `held` those of all shards. A concept has a row for each of its spans; a box one for each concept
        that it grounds.
        """
        if level == "samples":
            return f"FROM ({samples})"
        concepts = (
            f"FROM (SELECT s.*, {_list('c', _CONCEPT)} FROM {scan(store.url, 'concepts', files)} c "
            f"JOIN ({samples}) s USING (sample_id))"
        )
        if level == "concepts":
            return concepts
        return (
            f"FROM (SELECT c.*, {_list('b', _BOX)} FROM ("
            f"SELECT *, unnest({GROUNDS}) AS grounds {concepts} WHERE part = 0 AND {self.all('concepts')}"
            f") c JOIN {store.scan('boxes', files, held)} b ON b.concept_id = c.grounds)"
        )

    def counted(
        self, level: Level, samples: str, files: Files, store: Store, held: Held, *, whole: bool
    ) -> str:
        """SQL of the rows that are counted for people: as `relation`, but each box once where that can be.

        whole: no sample of these files was dropped. Their concepts and boxes need then not be joined with them.
        """
        if (
            whole
            and level != "samples"
            and all(clause.alone for clause in self.clauses if clause.level == level)
        ):
            return f"FROM (SELECT * FROM {store.scan(level, files, held)} SEMI JOIN _shards USING (shard))"
        if level == "boxes" and not any(clause.mixed for clause in self.clauses):
            boxes = f"{store.scan('boxes', files, held)} b"
            return f"FROM (SELECT s.*, {_list('b', _BOX)} FROM {boxes} JOIN ({samples}) s USING (sample_id))"
        return self.relation(level, samples, files, store, held)

    def survivors(self) -> tuple[Level, str]:
        """The level whose rows decide which samples stay, and the condition on them."""
        levels: dict[str, Level] = {"all": "samples", "concept": "concepts", "box": "boxes"}
        level = levels[self.keep]
        kinds = ", ".join(quote(kind) for kind in self.kinds) or "NULL"
        return level, self.all(level) + (f" AND kind IN ({kinds})" if level != "samples" else "")

    def all(self, level: Level) -> str:
        """All conditions of a level as one."""
        affirmed = ["denied IS NOT TRUE"] if level == "concepts" and not self.denied else []
        return " AND ".join(f"({sql})" for sql in [*self.at(level), *affirmed])


def _list(alias: str, names: Sequence[str]) -> str:
    return ", ".join(f'{alias}."{name}"' for name in names)


def _clause(connection: duckdb.DuckDBPyConnection, sql: str) -> Clause:
    """Find the coarsest level whose columns are enough for a condition."""
    problem = ""
    levels: list[tuple[Level, list[str]]] = [("samples", []), ("concepts", _CONCEPT), ("boxes", _BOX)]
    levels.append(("boxes", _CONCEPT + _BOX))
    for level, columns in levels:
        connection.register("_empty", pa.schema([_FIELDS[name] for name in _SAMPLE + columns]).empty_table())
        try:
            connection.execute(f"SELECT 1 FROM _empty WHERE {sql}").fetchall()
            mixed = level == "boxes" and columns is not _BOX
            return Clause(sql, level, mixed, level != "samples" and _stands(connection, sql, _OWN[level]))
        except duckdb.Error as error:
            problem = str(error).splitlines()[0]
    raise UserError(f"--where {sql}: {problem}; the columns are {', '.join(_FIELDS)}")


def _stands(connection: duckdb.DuckDBPyConnection, sql: str, schema: pa.Schema) -> bool:
    """Whether a condition can be asked of a table alone."""
    connection.register("_empty", schema.empty_table())
    try:
        connection.execute(f"SELECT 1 FROM _empty WHERE {sql}").fetchall()
    except duckdb.Error:
        return False
    return True
