"""What `import macco` offers a notebook."""

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import macco
from macco.pipeline.store import Store
from tests.support.drawn import CAPTION, drawn_store


def test_every_name_is_there_with_a_docstring() -> None:
    for name in macco.__all__:
        found = getattr(macco, name)
        assert inspect.getdoc(found), name
    assert dir(macco) == sorted(macco.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        macco.no_such_name  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'duckdb', 'pyarrow', 'spacy', 'ray', 'numpy'}"
    code = f"import sys, macco; found = {heavy} & set(sys.modules); assert not found, found"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_notebook_goes_the_whole_way(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    opened = macco.open_store(store.url)
    table = macco.query(opened, "SELECT kind, count(*) AS n FROM concepts GROUP BY 1 ORDER BY 1")
    assert table.column("kind").to_pylist() == ["attribute", "object", "relation"]
    with pytest.raises(macco.UserError, match="no_such_column"):
        macco.query(opened, "SELECT no_such_column FROM samples")
    (graph, none) = macco.parse([CAPTION, ""])
    assert next(CAPTION[s.start : s.end] for concept in graph for s in concept.spans) == "A red dog"
    assert none == []
    model, _, tokenizer = macco.load_clip("macco-demo")
    drawn = drawn_store(tmp_path_factory.mktemp("drawn"))
    size = {"image_size": 96, "patch_size": 16, "batch_size": 4, "workers": 0}
    batch = next(iter(macco.open_training_data(drawn, tokenizer, log=lambda line: None, **size)))
    assert batch.images.shape == (4, 3, 96, 96)
    out = tmp_path_factory.mktemp("out") / "clip"
    macco.export_open_clip(model, out, {"embed_dim": 128, "vision_cfg": {}, "text_cfg": {}})
    assert (out / "open_clip_model.safetensors").is_file()
    assert macco.losses.clip_contrast.__doc__


def test_the_version_is_the_changelogs() -> None:
    root = Path(__file__).parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    first = re.search(r"^## (\S+)( \(unreleased\))?", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert version == first[1] + (".dev0" if first[2] else "")
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
