"""What a quick command imports: what it does not need takes seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from macco.pipeline.store import Store
from tests.support.drawn import drawn_store

SLOW = (
    "torch",
    "pandas",
    "scipy",
    "spacy",
    "ray",
    "transformers",
    "open_clip",
    "matplotlib",
    "sng_parser",
    "timm",
)
# Runs a command line and says which of the slow packages it has imported.
RUN = f"""
import sys
module, *rest = sys.argv[1:]
sys.argv = ["macco", *rest]

from importlib import import_module
try:
    import_module(module).main()
except SystemExit as end:
    print("slow:", [name for name in {SLOW} if name in sys.modules], end.code or 0)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return drawn_store(tmp_path_factory.mktemp("store"), shards=2, images=4)


@pytest.mark.processes
@pytest.mark.parametrize(
    "words",
    [
        "preprocess --help",
        "preprocess extract --help",
        "preprocess extract --shards CORPUS/*.tar --out EXTRACTED --device cpu --workers 0",  # all is done
        "preprocess status STORE",
        "preprocess stats STORE",
        "preprocess sql STORE SQL",
        "train --help",
        "train run --help",
        "train presets",
    ],
)
def test_a_quick_command_imports_nothing_slow(
    words: str, drawn: str, corpus: Path, store: Store, tmp_path: Path
) -> None:
    stage, *rest = words.split()
    copy = tmp_path / "store"
    shutil.copytree(store.url, copy)
    names = {
        "STORE": drawn,
        "SQL": "SELECT count(*) FROM samples",
        "CORPUS/*.tar": f"{corpus}/*.tar",
        "EXTRACTED": str(copy),
    }
    given = [names.get(word, word) for word in rest]
    done = subprocess.run(
        [sys.executable, "-c", RUN, f"macco.{stage}.cli", *given],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["slow: [] 0"], done.stdout[-300:] + done.stderr[-2000:]
