"""What pages and examples say is so: commands run as they stand, options and presets exist, tables are the code's."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer
import yaml
from nbclient import NotebookClient

from macco.pipeline.schema import Status
from macco.preprocess.cli import app as prep
from macco.train.cli import app as train
from macco.train.layers import preset_names
from tests.support.commands import programs

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.name != "README.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *EXAMPLES]
SHELL = [*EXAMPLES, *sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
SCRIPTS = [path for path in SHELL if "bash" in path.open().readline()]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
GROUPS: dict[str, Any] = {
    "macco-prep": typer.main.get_command(prep),
    "macco-train": typer.main.get_command(train),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def named_commands(page: Path) -> Iterator[list[str]]:
    """The words of each macco command on a page, inline ones and continued ones too."""
    text = page.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        for found in re.findall(r"(?:^[ $]*|`|\| )((?:macco-prep|macco-train) [^`]+)", line):
            try:
                words = shlex.split(found.split(" # ")[0].split("  ->")[0], comments=True)
            except ValueError:  # a quotation that goes on in the next line: its options follow there
                words = found.split()
            yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    for words in named_commands(page):
        group = GROUPS[words[0]]
        name = words[1]
        if name.startswith("-") or not re.fullmatch(r"[a-z-]+", name):
            continue  # --help of the whole, or a sentence about the command
        command = group.commands.get(name)
        assert command is not None, f"{page.name}: {' '.join(words)}"
        options = {
            option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]
        }
        given = {word.split("=")[0] for word in words[2:] if re.match(r"--[a-z][\w-]*(=|$)", word)}
        assert given <= options | {"--help"}, f"{page.name}: {' '.join(words)}"
        for option, value in itertools.pairwise(words):
            if option == "--preset" and not value.startswith(("NAME", "FILE")):
                assert value.rstrip(",;.)") in preset_names(), f"{page.name}: {value}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_sound(script: Path) -> None:
    found = subprocess.run([SHELLCHECK, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_cluster_of_the_examples_is_one_to_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "examples" / "ray-cluster.yaml").read_text())))


def test_the_job_of_the_examples_asks_for_what_there_is() -> None:
    job = yaml.safe_load((ROOT / "examples" / "kuberay-job.yaml").read_text())["spec"]
    words = shlex.split(job["entrypoint"])
    command = GROUPS[words[0]].commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.processes
@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    page = ROOT / "docs" / "start.md"
    script = "\n".join(["set -euo pipefail", *blocks(page, "bash")])
    (tmp_path / "use.py").write_text("\n".join(blocks(page, "python")))
    with programs() as folder:
        path = os.pathsep.join([folder, os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
        subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=400)
    used = subprocess.run(
        [sys.executable, "use.py"],
        cwd=tmp_path,
        env=environment,
        check=True,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert used.stdout.splitlines()[-1].startswith("torch.Size([1,")


def test_the_statuses_are_those_of_the_schema() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert rows == [(str(status), status.meaning) for status in Status]


@pytest.mark.parametrize("page", ["coco.md", "reproduce.md"])
def test_the_published_figures_are_those_of_the_manifest(page: str) -> None:
    columns = yaml.safe_load((ROOT / "data_manifests" / "macco" / "tables.yaml").read_text())["columns"]
    text = (ROOT / "docs" / page).read_text()
    (header,) = re.findall(r"^\| \| (ARO Rel .*) \|$", text, re.MULTILINE)
    names = []
    for cell in header.split(" | "):
        first, *rest = cell.split(" / ")
        names += [first, *(f"{first.rsplit(' ', 1)[0]} {name}" for name in rest)]
    assert names == list(columns)
    for row, model in [("CLIP", "CLIP"), ("fine-tuned", "fine-tuned"), ("MACCO", "ViT-B-32")]:
        (cells,) = re.findall(rf"^\| {row} \| (.*) \|$", text, re.MULTILINE)
        figures = [float(figure) for figure in re.findall(r"[\d.]+", cells)]
        assert figures == [column["published"][model] for column in columns.values()], row


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cells = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in cells.cells), "outputs are not kept in git"
    with programs() as folder:
        monkeypatch.setenv("PATH", folder, prepend=os.pathsep)
        NotebookClient(cells, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in cells.cells if cell.cell_type == "code")
