"""SQL that others wrote: it reads the store and nothing else, and changes nothing.

DuckDB's type of a statement is not enough: `WITH x AS (COPY ...) SELECT 1` is a SELECT that writes a file, and some
table functions run text that nobody has read. So what DuckDB has parsed is looked at, and files are shut off besides.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Final

import duckdb

from macco.pipeline.errors import UserError
from macco.pipeline.folder import Folder
from macco.pipeline.views import TABLE_MACROS, literal, quote

# What a question may be made of. COPY, INSERT, UPDATE and DELETE are nodes of their own.
_NODES: Final = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"))
# The table functions that it may call. Others run SQL given as text, or read memory by its address.
_ROWS: Final = ("unnest", "range", "generate_series", "repeat", *TABLE_MACROS)
_FILES: Final = ("read_parquet", "parquet_scan", "parquet_schema", "parquet_metadata", "read_json", "glob")

DEPTH: Final = 200  # of brackets in a condition


def seal(connection: duckdb.DuckDBPyConnection, *folders: Folder) -> None:
    """Let a connection reach some folders and no other file, no extension, no address, no variable of Python's.

    Links are followed from a folder's own folders and Parquet files, for tables may lie elsewhere (the Hub's cache).
    """
    # As a pattern, too, which is what is asked for where the path holds brackets or stars.
    directories = [
        f"{path}/" for folder in folders for path in dict.fromkeys((folder.url, literal(folder.url)))
    ]
    files = list[str]()
    for folder in folders:
        for table in os.scandir(folder.url) if folder.local else ():
            if table.is_symlink():
                (directories if table.is_dir() else files).append(table.path + "/" * table.is_dir())
            if table.is_dir():
                files += [file.path for file in os.scandir(table) if file.is_symlink()]
    shut = {
        # DuckDB may read where it spills to, so that is a folder of its own, made when it is needed.
        "temp_directory": quote(f"{tempfile.gettempdir()}/macco-{uuid.uuid4().hex}"),
        "allowed_directories": _strings(directories),
        "allowed_paths": _strings([file for file in files if file.endswith(".parquet")]),
        "enable_external_access": "false",
        "python_enable_replacements": "false",
        "autoload_known_extensions": "false",
        "autoinstall_known_extensions": "false",
        "lock_configuration": "true",
    }
    for name, value in shut.items():
        connection.execute(f"SET {name} = {value}")


def question(sql: str) -> str:
    """One SELECT that reads and does nothing else, as it was given; raises UserError for any other text."""
    tree = _parsed(sql, f"{sql!r} is run only if it reads")
    _check(tree, repr(sql), (*_ROWS, *_FILES))
    return sql


def conjuncts(where: str) -> list[str]:
    """A condition taken apart at its top-level ANDs, each as DuckDB writes it; none of an empty one.

    Raises UserError where it is no condition, is more than one, or would read a file.
    """
    if not where.strip():
        return []
    said = f"--where {where!r}"
    # DuckDB's parser takes the square of the depth: seconds for thousands.
    if max(accumulate((c == "(") - (c == ")") for c in where)) > DEPTH:
        raise UserError(f"{said[:60]}... has brackets within brackets, more than {DEPTH} deep")
    tree = _parsed(f"SELECT 1 WHERE (\n{where}\n)", said)
    _check(tree, said, _ROWS)
    node = tree["statements"][0]["node"]
    plain = _parsed("SELECT 1 WHERE (\ntrue\n)", said)["statements"][0]["node"]
    condition = node.get("where_clause")
    if condition is None or node | {"where_clause": plain["where_clause"]} != plain:
        raise UserError(f"{said} is more than a condition")
    found = []
    for child in condition["children"] if condition["type"] == "CONJUNCTION_AND" else [condition]:
        node["where_clause"] = child
        text = _ask("SELECT json_deserialize_sql(?::JSON)", json.dumps(tree))
        found.append(text.removeprefix("SELECT 1 WHERE "))
    return found


def _parsed(sql: str, said: str) -> dict[str, Any]:
    """The one statement that a text is, as DuckDB reads it."""
    if "\0" in sql:
        raise UserError(f"{said}: there is a NUL character, which no SQL has")
    tree: dict[str, Any] = json.loads(_ask("SELECT json_serialize_sql(?::VARCHAR)", sql))
    if tree["error"]:
        raise UserError(f"{said}: DuckDB: {' '.join(tree['error_message'].split())}")
    if len(tree["statements"]) != 1:
        raise UserError(f"{said}: there are {len(tree['statements'])} statements: ask one question at a time")
    return tree


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    seal(connection)
    return connection


def _ask(sql: str, value: str) -> str:
    ((text,),) = _parser().cursor().execute(sql, [value]).fetchall()
    return str(text)


def _check(tree: Any, said: str, functions: Sequence[str]) -> None:
    for node in _nodes(tree):
        kind = node["type"]
        if kind.endswith("_NODE") and kind not in _NODES:
            raise UserError(f"{said}: only what reads is run, and this has {kind.split('_')[0]}")
        if kind == "TABLE_FUNCTION" and (name := node["function"]["function_name"].lower()) not in functions:
            raise UserError(f"{said}: {name} may not be called here, only {', '.join(functions)}")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed statement that has a type."""
    if isinstance(tree, dict):
        if isinstance(tree.get("type"), str):
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from _nodes(each)


def _strings(values: Sequence[str]) -> str:
    return f"[{', '.join(map(quote, values))}]"
