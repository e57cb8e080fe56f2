"""What both command lines do alike: help, version, completion, interrupts; and from where they run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
NAMES = {"macco-prep": "preprocess", "macco-train": "train"}
HEAVY = ["torch", "duckdb", "pyarrow", "ray", "spacy", "transformers", "open_clip", "numpy", "PIL", "fsspec"]
WORKED = ["extract", "sql", "view", "export", "retry", "run", "eval", "report", "study"]  # with examples

# Give command lines to a main and print, as JSON, what each wrote, its exit code, and the heavy modules that came.
CALLS = """
import contextlib, io, json, sys
from importlib import import_module
main = import_module(sys.argv[1]).main
done = []
for line in json.loads(sys.argv[2]):
    sys.argv[1:] = line
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            done.append([end.code, out.getvalue()])
print(json.dumps([done, [name for name in json.loads(sys.stdin.read()) if name in sys.modules]]))
"""


def call(name: str, *lines: list[str]) -> tuple[list[tuple[int, str]], list[str]]:
    """What command lines say in one fresh process, and which of the heavy packages it has imported then."""
    command = [sys.executable, "-c", CALLS, f"macco.{NAMES[name]}.cli", json.dumps(lines)]
    ended = subprocess.run(command, input=json.dumps(HEAVY), capture_output=True, text=True, check=True)
    done, imported = json.loads(ended.stdout)
    return [(code, out) for code, out in done], imported


def commands(name: str) -> list[str]:
    ((_, out),), _ = call(name, ["--help"])
    return re.findall(r"^  ([a-z-]+)  ", out.partition("Commands:")[2], re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_help_is_everywhere_and_imports_nothing_heavy(name: str) -> None:
    known = commands(name)
    assert len(known) >= 12
    done, imported = call(name, [], ["-h"], ["--help"], ["--version"], *([each, "-h"] for each in known))
    assert imported == []
    assert [code for code, _ in done] == [0] * len(done)
    bare, short, long, version, *each = (out for _, out in done)
    assert bare == short == long
    assert bare.startswith(f"Usage: {name} [OPTIONS] COMMAND [ARGS]...\n\n  ")
    assert re.fullmatch(r"macco \d+\.\d+\.\d+\S*\n", version)
    for command, out in zip(known, each, strict=True):
        assert out.startswith(f"Usage: {name} {command} ")
        if command in WORKED:
            assert re.search(rf"\n\n  Examples?:\n\n(    \S.*\n)*    {name} {command} .*\n", out), out


def test_presets_are_listed_and_resolved_without_anything_heavy() -> None:
    ((_, listed), (_, whole)), imported = call("macco-train", ["presets"], ["presets", "tiny"])
    assert imported == []
    assert "paper-vitb32 " in listed
    assert "batch_size: " in whole


@pytest.mark.parametrize(
    ("name", "begun", "whole"), [("macco-prep", "ex", "extract"), ("macco-train", "fr", "freeze-order")]
)
def test_shells_complete_commands(name: str, begun: str, whole: str) -> None:
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    asked = {variable: "complete_bash", "COMP_WORDS": f"{name} {begun}", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", f"macco.{NAMES[name]}"]
    ended = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert whole in ended.stdout.split()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_modules_of_the_users_own_changes_nothing(name: str, tmp_path: Path) -> None:
    for module in ("train", "pipeline", "preprocess", "data_manifests", "console", "config", "cli"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('the wrong module')\n")
    script = tmp_path / "mine.py"
    script.write_text(
        "import macco.train.layers, macco.preprocess.config\nprint(macco.train.layers.preset_names())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for command in (["-m", f"macco.{NAMES[name]}", "--help"], [str(script)]):
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert name in ended.stdout or "tiny" in ended.stdout


def interrupted(process: "subprocess.Popen[str]") -> str:
    """What a process says when it is interrupted at work: again, where an import swallowed the first signal."""
    for wait in (3, 10, 10, 10):
        try:
            return process.communicate(timeout=wait)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    return process.communicate(timeout=10)[1]


def test_ctrl_c_in_a_long_question_exits_130(tmp_path: Path) -> None:
    long = "SELECT count(*) FROM range(1000000000) a, range(100000) b WHERE a.range * b.range % 7 = 3"
    store = ROOT / "tests/fixtures/v0.1/store"
    for format in ("table", "json"):
        out = [] if format == "table" else ["--out", str(tmp_path / "out.json")]
        command = [
            sys.executable,
            "-m",
            "macco.preprocess",
            "sql",
            str(store),
            long,
            "--format",
            format,
            *out,
        ]
        # A shell's background job ignores ctrl-c, and so would what it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        signal.signal(signal.SIGINT, before)
        try:
            errors = interrupted(process)
        finally:
            process.kill()
        # What ends by the signal itself, as Python may while it imports, has 130 in a shell too.
        assert process.returncode in (130, -signal.SIGINT), errors
        assert errors.startswith("macco-prep: interrupted")
        assert len(errors.splitlines()) == 1


def test_the_wheel_holds_macco_alone_and_all_its_data(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("macco", "pipeline", "preprocess", "train", "data_manifests"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"macco"}
    assert not any(entry.external_attr >> 16 & 0o170000 == 0o120000 for entry in entries)  # symbolic links
    assert "macco/py.typed" in names
    for folder in ("pipeline", "preprocess", "train", "data_manifests"):
        here = [
            path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        data = {f"macco/{path.relative_to(ROOT)}" for path in here}
        assert data <= names, sorted(data - names)
    assert {Path(name).suffix for name in names} >= {".py", ".yaml", ".safetensors", ".ttf", ".json"}
