"""SQL over a store, statement by statement: a shell with completion, or what standard input holds."""

import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from macco.pipeline import reference
from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.pipeline.views import TABLE_MACROS, VIEWS
from macco.preprocess.look.sql import ask, check, rows, statements

if TYPE_CHECKING:
    import duckdb
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

LEAVE: Final = ("exit", "quit", ".exit", ".quit", "\\q")
_AFTER: Final = re.compile(r"\b(from|join|describe|summarize|table|into|update)\s+\w*$", re.IGNORECASE)
_WORD: Final = re.compile(r"(?:(\w+)\.)?(\w*)$")
_ALIAS: Final = re.compile(r"\b(?:from|join|,)\s*(\w+)(?:\([^)]*\))?(?:\s+as)?\s+(\w+)", re.IGNORECASE)
_CLAUSES: Final = (
    "SELECT",
    "FROM",
    "WHERE",
    "JOIN",
    "USING",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
)  # first
_NAMES: Final = (*VIEWS, "tags")


def read(
    store: Store, text: str, format: str = "table", out: str | None = None, *, read_only: bool = False
) -> None:
    """Answer the statements of a text one after another; with `out`, its one question. Raises UserError at the first
    that is wrong, and where there is none."""
    check(format, out)
    connection = connect(store, sealed=read_only)
    found = statements(connection, text)
    if not found:
        raise UserError("say what to ask, for example 'SELECT count(*) FROM samples', or --write-views")
    if out is not None:
        ask(connection, text, format, out, read_only=read_only)
        return
    for statement in found:
        _give(connection, statement, format, read_only)


def shell(store: Store, format: str = "table", *, read_only: bool = False) -> None:
    """Read statements from the terminal until Ctrl-D; a statement ends in a semicolon, Tab completes."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.lexers import PygmentsLexer
    from pygments.lexers.sql import SqlLexer

    check(format, None)
    connection = connect(store, sealed=read_only)
    session = PromptSession[str](history=_history(), lexer=PygmentsLexer(SqlLexer), multiline=True)
    keys = KeyBindings()

    @keys.add("enter", filter=Condition(lambda: ended(session.default_buffer.text)))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    print(f"{', '.join(_NAMES)}: a statement ends in ; Tab completes, Ctrl-D leaves", file=sys.stderr)
    while True:
        try:
            text = session.prompt(
                "sql> ", prompt_continuation="...> ", key_bindings=keys, completer=completer(connection)
            )
            if text.strip().rstrip(";").strip() in LEAVE:
                return
            for statement in statements(connection, text):
                _give(connection, statement, format, read_only)
        except EOFError:
            return
        except UserError as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            continue  # it was the statement that was meant


def ended(text: str) -> bool:
    """Whether a text is to be run as it stands: it ends in a semicolon that is no part of a string or a comment."""
    import duckdb

    if not text.strip() or text.strip() in LEAVE:
        return True
    data, tokens = text.encode(), duckdb.tokenize(text)
    at, kind = tokens[-1] if tokens else (0, None)
    return kind == duckdb.token_type.operator and data[at:].strip() == b";"


def completer(connection: "duckdb.DuckDBPyConnection") -> "Completer":
    """Completes views after FROM and JOIN, columns after a view's name or alias, and else what the statement's views
    have first, then functions and keywords. What a column means stands beside it."""
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document

    known = _columns(connection)
    functions, keywords = (
        [str(name) for (name,) in connection.execute(f"SELECT DISTINCT {sql} ORDER BY 1").fetchall()]
        for sql in (
            "function_name FROM duckdb_functions() WHERE regexp_full_match(function_name, '[a-z]\\w*')",
            "upper(keyword_name) FROM duckdb_keywords()",
        )
    )

    class Words(Completer):
        def get_completions(self, document: Document, event: object) -> Iterator[Completion]:
            before, whole = document.text_before_cursor, document.text
            found = _WORD.search(before)
            if found is None or before.count("'") % 2:  # in a string
                return
            owner, word = found.groups()
            if not owner and not word and not _AFTER.search(before):
                return
            for name, said in self._fitting(before, whole, owner):
                if name.lower().startswith(word.lower()):
                    yield Completion(name, -len(word), display_meta=said)

        def _fitting(self, before: str, whole: str, owner: str | None) -> Iterator[tuple[str, str]]:
            if owner is not None:
                named = {alias.lower(): view for view, alias in _ALIAS.findall(whole)}
                yield from known.get(named.get(owner.lower(), owner).lower(), ())
                return
            views = [(name, "") for name in (*known, *TABLE_MACROS)]
            if _AFTER.search(before):
                yield from views
                return
            words = {word.lower() for word in re.findall(r"\w+", whole)}
            columns = dict(
                pair
                for view, pairs in known.items()
                if view in words or not words & {*known}
                for pair in pairs
            )
            yield from columns.items()
            others = [(name, "") for name in dict.fromkeys((*_CLAUSES, *functions, *keywords))]
            yield from (pair for pair in (*views, *others) if pair[0] not in columns)

    return Words()


def _give(
    connection: "duckdb.DuckDBPyConnection", statement: "duckdb.Statement", format: str, read_only: bool
) -> None:
    if format != "table" and not read_only and not rows(statement):
        ask(
            connection, statement.query, stream=io.StringIO()
        )  # among rows there is no word about what has none
    else:
        ask(connection, statement.query, format, read_only=read_only)


def _columns(connection: "duckdb.DuckDBPyConnection") -> dict[str, list[tuple[str, str]]]:
    """Name and meaning of the columns of each view, and of what was made since."""
    said = {view: {name: text for name, _, text in reference.columns(connection, view)} for view in _NAMES}
    found: dict[str, list[tuple[str, str]]] = defaultdict(list, {view: [] for view in _NAMES})
    hidden = {"committed", "loose", *(f"no_{view}" for view in _NAMES)}
    asked = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal ORDER BY table_oid, column_index"
    for view, name in connection.execute(asked).fetchall():
        if view not in hidden:
            found[view].append((name, said.get(view, {}).get(name, "")))
    return found


def _history() -> "History":
    """What was asked before, on this machine; none is kept where nothing can be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    file = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "macco" / "sql_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))
