"""Damage by a seed: to the bytes of a file, and to a folder of files."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ODD = ["\u0000", "\u202e", "\ufeff", "\U0001f468\u200d\U0001f469", "e\u0301" * 9, "&#x110000;", "&amp;" * 5]
ODD += ["((((", '"', "9" * 400, "-1", "null", "[" * 50, "ﬀ", "İ", "1e999", "\r\n", "\t", "not " * 40]
VALUES: list[Any] = [None, True, -1, 0, 2**70, 1e308, float("nan"), "", "x", "../../x", "\u0000", "\ud800"]
VALUES += [[], [1], [[]], {}, {"a": 1}, {"": []}, ["x", None], {"file": "../x"}]


def mutated(data: bytes, random: Random) -> bytes:
    """The same bytes, some of them others, gone, twice there, or moved."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at, end = sorted(random.randrange(len(out) + 1) for _ in range(2))
        act = random.randrange(6)
        if act == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif act == 1:
            del out[at : min(end, at + 40)]
        elif act == 2:
            out[at:at] = random.choice(ODD).encode()
        elif act == 3:
            out[at:at] = out[at : min(end, at + 200)]
        elif act == 4:
            out[at : at + 8] = random.randbytes(8)
        elif random.random() < 0.3:
            del out[at:]
    return bytes(out)


def _bytes(file: Path, random: Random, files: list[Path]) -> None:
    file.write_bytes(mutated(file.read_bytes(), random))


def _shorter(file: Path, random: Random, files: list[Path]) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: random.choice((0, 1, random.randrange(len(data) + 1)))])


def _another(file: Path, random: Random, files: list[Path]) -> None:
    """Two files change places, or one is in the place of the other."""
    other = random.choice(files)
    if other.is_file():
        data, theirs = file.read_bytes(), other.read_bytes()
        file.write_bytes(theirs)
        if random.random() < 0.5:
            other.write_bytes(data)


def changed_value(file: Path, random: Random, files: list[Path]) -> None:
    """A value of a JSON file, anywhere in it, is another, or gone; a table has other columns."""
    if file.suffix == ".parquet":
        _columns(file, random)
        return
    try:
        whole = [json.loads(file.read_bytes())]
    except ValueError:
        _bytes(file, random, files)
        return
    place: Any = whole
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = random.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or random.random() < 0.3:
            break
        place = place[key]
    if random.random() < 0.2 and isinstance(place, dict):
        del place[key]
    else:
        place[key] = random.choice(VALUES)
    file.write_text(json.dumps(whole[0]))


def _columns(file: Path, random: Random) -> None:
    """Another table in a file of Parquet: whole, and not what it is to be."""
    try:
        table = pq.read_table(file)
    except Exception:  # damaged before
        return
    at = random.randrange(table.num_columns) if table.num_columns else 0
    name, nothing = table.column_names[at] if table.num_columns else "", [None] * table.num_rows
    changed: dict[str, Callable[[], pa.Table]] = {
        "gone": lambda: table.drop_columns([name]),
        "renamed": lambda: table.rename_columns(["x" if one == name else one for one in table.column_names]),
        "null": lambda: table.set_column(at, name, pa.array(nothing, table.schema.field(at).type)),
        "of no type": lambda: table.set_column(at, name, pa.nulls(table.num_rows)),
        "number": lambda: table.set_column(at, name, pa.array([*range(table.num_rows)], pa.int64())),
        "text": lambda: table.set_column(at, name, pa.array(["x"] * table.num_rows)),
        "list": lambda: table.set_column(at, name, pa.array([["x"]] * table.num_rows)),
        "no row": lambda: table.slice(0, 0),
        "twice": lambda: pa.concat_tables([table, table]),
        "without metadata": lambda: table.replace_schema_metadata(None),
    }
    out = io.BytesIO()
    if table.num_columns:
        pq.write_table(changed[random.choice([*changed])](), out)
        file.write_bytes(out.getvalue())


def _gone(file: Path, random: Random, files: list[Path]) -> None:
    file.unlink() if random.random() < 0.7 else shutil.rmtree(file.parent)


def _folder(file: Path, random: Random, files: list[Path]) -> None:
    """A folder where a file was, or a file where a folder was, or a link that leads to nothing or to itself."""
    act = random.randrange(4)
    if act == 0:
        file.unlink()
        file.mkdir()
    elif act == 1:
        shutil.rmtree(file.parent)
        file.parent.touch()
    else:
        file.unlink()
        file.symlink_to("nowhere" if act == 2 else file.name)


def _extra(file: Path, random: Random, files: list[Path]) -> None:
    """A file more: a copy, or of another system, or of a name that nobody gives."""
    names = [
        f"._{file.name}",
        f"{file.stem} 2{file.suffix}",
        f".tmp-{file.name}-01234567",
        f"-x{file.suffix}",
    ]
    names += [f"{odd}{file.suffix}" for odd in (" ", "'", "%s*", "[a]", "\u202ex", "a'; x", "~", "b" * 200)]
    data = random.choice((b"", b"\x00\x05\x16\x07", file.read_bytes()))
    (file.parent / random.choice(names)).write_bytes(data)


ACTS = (
    _bytes,
    _bytes,
    _shorter,
    _another,
    changed_value,
    changed_value,
    changed_value,
    _gone,
    _folder,
    _extra,
)


def damage(folder: Path, random: Random) -> None:
    """Change files of a folder, some of them, in ways that nobody would."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        if files:
            random.choice(ACTS)(random.choice(files), random, files)


def copied(template: Path, out: Path) -> Path:
    """A copy of a folder in the place of what was there."""
    if out.is_dir() and not out.is_symlink():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)
    shutil.copytree(template, out)
    return out
