"""SQL statement by statement: a shell, what it completes, and what is read from standard input."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.look.shell import completer, ended, read, shell
from tests.support.rows import record, tables


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.create(str(tmp_path_factory.mktemp("shell") / "store"), {})
    store.commit("a", tables("a", ["dog", "cat"]), record("a"))
    return store


@pytest.fixture
def typed(small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def give(*keys: str, read_only: bool = False) -> None:
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
            for text in keys:
                pipe.send_text(text)
            shell(small, "csv", read_only=read_only)

    return give


def test_statements_are_answered_until_one_leaves(
    typed: Callable[..., None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed(
        "SELECT lemma\r FROM concepts\r ORDER BY 1;\r",  # Enter goes on until a semicolon
        "SELECT nope;\r",
        "CREATE TEMP TABLE t AS SELECT 7 AS n;\r",
        "FROM t; SELECT ';' AS s;\r",
        "\x04",
    )
    found = capfd.readouterr()
    assert found.out == "lemma\ncat\ndog\nn\n7\ns\n;\n"
    assert 'DuckDB: Binder Error: Referenced column "nope"' in found.err
    kept = (tmp_path / "state/macco/sql_history").read_text()
    assert "+SELECT nope;" in kept


def test_ctrl_c_drops_the_statement_and_exit_leaves(
    typed: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    typed("SELECT 1 AS dropped\x03", "SELECT 2 AS n;\r", "exit\r")
    assert capfd.readouterr().out == "n\n2\n"


def test_a_shell_for_others_only_reads(typed: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    typed("DROP VIEW samples;\r", "SELECT count(*) AS n FROM samples;\r", "\x04", read_only=True)
    found = capfd.readouterr()
    assert "is run only if it reads" in found.err
    assert found.out == "n\n2\n"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT 1; ", True),
        ("SELECT ';", False),
        ("SELECT 'é;'", False),
        ("SELECT 'é';", True),
        ("SELECT 1 -- ;", False),
        ("SELECT 1; SELECT", False),
        ("exit", True),
    ],
)
def test_a_statement_ends_in_its_semicolon(text: str, whole: bool) -> None:
    assert ended(text) is whole


COMPLETED = {
    "FROM tri": ("triplets", ["triplets"]),
    "SELECT * FROM samples JOIN con": ("concepts", ["concepts", "concept_boxes"]),
    "FROM exam": ("examples", ["examples"]),
    "SELECT s.capt| FROM samples s": ("caption_id", ["caption", "caption_id"]),
    "SELECT images.capt| FROM images": ("captions", ["captions"]),
    "SELECT sub| FROM triplets": ("subject", ["subject", "subject_text", "subject_box"]),
    "SELECT string_ag": ("string_agg", ["string_agg"]),
    "SELECT * FROM boxes WHE": ("WHERE", ["WHERE"]),
    "SELECT io": ("iou", ["iou"]),
    "FROM mi": ("mine", ["mine"]),
    "SELECT own.n| FROM mine own": ("number", ["number"]),
}


@pytest.mark.parametrize("text", COMPLETED)
def test_names_are_completed(small: Store, text: str) -> None:
    connection = connect(small)
    connection.execute("CREATE TEMP TABLE mine AS SELECT 1 AS number")
    place = text.find("|") if "|" in text else len(text)
    document = Document(text.replace("|", ""), place)
    words = [one.text for one in completer(connection).get_completions(document, CompleteEvent())]
    first, some = COMPLETED[text]
    assert words[0] == first
    assert {*some} <= {*words}
    assert len(words) == len({*words})


@pytest.mark.parametrize("text", ["", "SELECT ", "SELECT 'dog", "FROM samples WHERE caption = 'a d"])
def test_nothing_is_offered_where_nothing_is_meant(small: Store, text: str) -> None:
    assert list(completer(connect(small)).get_completions(Document(text), CompleteEvent())) == []


def test_a_column_is_offered_with_its_meaning(small: Store) -> None:
    document = Document("SELECT dhas")
    (found,) = completer(connect(small)).get_completions(document, CompleteEvent())
    assert "64-bit difference hash" in found.display_meta_text


def test_statements_are_read_one_after_another(
    small: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "SET threads = 1; SELECT 1 AS a;\n-- why\nSELECT 2 AS b"
    read(small, text, "csv")
    assert capfd.readouterr().out == "a\n1\nb\n2\n"
    with pytest.raises(UserError, match="one question at a time"):
        read(small, text, "csv", str(tmp_path / "x.csv"))
    read(small, "SET threads = 1; SELECT 1 AS a", "csv", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == "a\n1\n"
    for nothing in ("", "-- nothing", ";"):
        with pytest.raises(UserError, match="say what to ask"):
            read(small, nothing)
    with pytest.raises(UserError, match="syntax error"):
        read(small, "SELECT 1; SELEC 2")
    with pytest.raises(UserError, match="only if it reads"):
        read(small, "COPY (SELECT 1) TO 'x'", read_only=True)


@pytest.mark.processes
def test_a_terminal_gets_a_shell_and_a_pipe_its_answers(small: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "macco.preprocess", "sql", small.url]
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "dumb", "COLUMNS": "80"}
    piped = subprocess.run(
        [*command, "--format", "csv"], input="SELECT 40 + 2 AS n", capture_output=True, text=True, check=True
    )
    assert piped.stdout == "n\n42\n"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.write(ours, b"SELECT 40 + 2 AS n;\r")
        os.write(ours, b"exit\r")
        out, error = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, error
    assert "42" in out.decode()
    assert "Tab completes" in error.decode()
