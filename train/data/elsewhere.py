"""Foils and captions that were made elsewhere, by a language model say, into a store: JSON lines by sample_id."""

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from macco.pipeline.errors import UserError
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.schema import ENTITY, NEGATIVE_KINDS, NEGATIVE_ROWS, NEGATIVES, OK, PARAPHRASES, UNITS
from macco.pipeline.store import Store
from macco.pipeline.urls import open_url
from macco.train.data import units
from macco.train.data.negatives import say_replaced

PARAPHRASE_SCHEMA: Final = pa.schema(
    [pa.field("sample_id", pa.string(), nullable=False), pa.field("caption", pa.string(), nullable=False)]
)
SCHEMAS: Final = {NEGATIVES: NEGATIVE_ROWS, UNITS: units.SCHEMA, PARAPHRASES: PARAPHRASE_SCHEMA}
MADE: Final = "imported"  # the kind of a unit's foil that no rule here made

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Rows = list[dict[str, Any]]
Wrong = dict[str, list[int]]  # the numbers of lines, from 1, by what is wrong with them
SHOWN: Final = 10  # numbers of lines that are told of one kind


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Unit(_Strict):
    kind: Literal["entity", "relation"] = ENTITY
    text: Text
    foils: list[Text] = []


class _Line(_Strict):
    sample_id: str
    negatives: dict[Literal[NEGATIVE_KINDS], Text] = {}  # type: ignore[valid-type]
    units: list[_Unit] = []
    paraphrases: list[Text] = []

    def rows(self, caption: str) -> dict[str, Rows]:
        """Rows by table. Raises ValueError for a foil that is the text it is a foil of."""
        own: dict[str, Any] = {"sample_id": self.sample_id}
        found: dict[str, Rows] = {
            NEGATIVES: [own | {"kind": kind, "caption": text} for kind, text in self.negatives.items()],
            PARAPHRASES: [own | {"caption": text} for text in self.paraphrases],
            UNITS: [],
        }
        pairs = [(caption, text) for text in self.negatives.values()]
        for number, unit in enumerate(self.units):
            row = own | {"unit": number, "kind": unit.kind, "text": unit.text}
            found[UNITS] += [row | {"foil_kind": MADE, "foil": foil} for foil in unit.foils] or [row]
            pairs += [(unit.text, foil) for foil in unit.foils]
        if any(text.lower() == foil.lower() for text, foil in pairs):
            raise ValueError("a foil is the text itself")
        return found


def import_texts(store: Store, file: str, log: Callable[[str], None]) -> dict[str, int]:
    """Write the tables that a file has rows for, each anew and whole; returns how many rows each has.

    A line is {"sample_id": ..., "negatives": {kind: caption}, "units": [{"kind": entity or relation, "text": ...,
    "foils": [...]}], "paraphrases": [...]}, of which sample_id alone must be there. Lines that do not fit are counted,
    and told to `log` by what is wrong with them.

    Raises UserError where there is no such file, or no line of it fits.
    """
    try:
        with open_url(file) as stream:
            lines, wrong = _read(stream)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    tables: dict[str, dict[str, Rows]] = {name: {} for name in SCHEMAS}
    shards = sorted(store.committed())
    for shard in shards:
        samples = store.table("samples", shard).select(["sample_id", "caption", "status"]).to_pylist()
        for sample in samples:
            number, line = lines.pop(sample["sample_id"], (0, None)) if sample["status"] == OK else (0, None)
            if line is None:
                continue
            try:
                for name, rows in line.rows(sample["caption"]).items():
                    tables[name].setdefault(shard, []).extend(rows)
            except ValueError as error:
                wrong[str(error)].append(number)
    if lines:
        wrong["the store has no such sample_id, or no caption of it"] += [
            number for number, _ in lines.values()
        ]
    for reason, numbers in sorted(wrong.items(), key=lambda one: -len(one[1])):
        told = ", ".join(map(str, sorted(numbers)[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
        log(f"{len(numbers)} lines left out: {reason} (line {told})")
    totals = {name: sum(map(len, of.values())) for name, of in tables.items()}
    if not any(totals.values()):
        raise UserError(f"{file} has nothing for {store.url}: see macco-train import-texts --help")
    for name, count in totals.items():
        if count:
            say_replaced(store, name, log)
            store.make(name)
            for shard in shards:
                table = pa.Table.from_pylist(tables[name].get(shard, []), schema=SCHEMAS[name])
                store.put(f"{name}/{shard}.parquet", parquet_bytes(SCHEMAS[name], table))
    return {name: count for name, count in totals.items() if count}


def _read(stream: Iterable[bytes]) -> tuple[dict[str, tuple[int, _Line]], Wrong]:
    """The lines by sample_id, each with its number, and the numbers of those with which something is wrong."""
    found: dict[str, tuple[int, _Line]] = {}
    wrong: Wrong = defaultdict(list)
    for number, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate_json(text.removeprefix(codecs.BOM_UTF8) if number == 1 else text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(part for part in first["loc"] if isinstance(part, str))
            wrong[f"{key or 'the line'}: {first['msg']}"].append(number)
            continue
        if line.sample_id in found:
            wrong["its sample_id has a line already"].append(number)
        else:
            found[line.sample_id] = number, line
    return found, wrong
