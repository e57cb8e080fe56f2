"""The commands of macco-prep, as a user types them."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from macco.pipeline.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run macco-prep in this process: (exit code, standard output, standard error)."""
    from macco.preprocess.cli import main

    def macco_prep(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["macco-prep", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main()
        out, errors = capfd.readouterr()
        return int(end.value.code or 0), out, errors

    return macco_prep


@pytest.mark.slow
def test_demo_extract_score_and_again(run: Run, tmp_path: Path) -> None:
    corpus, store = tmp_path / "corpus", tmp_path / "store"
    assert (
        run("demo", str(corpus), "--images", "6", "--seed", "2", "--shard-size", "3", "--split", "val")[0]
        == 0
    )
    extract = (
        "extract",
        "--shards",
        f"{corpus}/*.tar",
        "--out",
        str(store),
        "--workers",
        "0",
        "--device",
        "cpu",
    )
    code, out, _ = run(*extract)
    assert code == 0
    assert out.startswith("2 shards extracted, 0 were there, 0 failed; 30 samples")
    assert run(*extract)[1].startswith("0 shards extracted, 2 were there")
    code, _, errors = run(*extract, "--box-threshold", "0.3")
    assert code == 2
    assert "box_threshold" in errors
    code, out, _ = run("score", str(store), "--truth", str(corpus / "truth"), "--json")
    assert code == 0
    assert json.loads(out)["spans"]["f1"] > 0.9
    assert run("retry", str(store), "--workers", "0", "--device", "cpu")[0] == 0


def test_a_benchmark_has_no_tars_to_size(run: Run, tmp_path: Path) -> None:
    code, _, errors = run("demo", str(tmp_path / "d"), "--benchmark", "--split", "val", "--shard-size", "3")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "--shard-size" in errors


def test_parse(run: Run) -> None:
    caption = "A red dog is sitting on a small sofa."
    code, out, _ = run("parse", caption)
    assert code == 0
    words, objects, attributes, relations = (line for line in out.splitlines()[:4])
    assert words == caption
    assert objects[6:9] == "===" != objects[5:6]
    assert attributes[2:5] == "^^^"
    assert relations[13:23] == "~" * 10
    assert "dog -[sitting on]-> sofa" in out
    lines = f"{caption}\n\nno\xff\n".encode("latin-1")
    code, out, _ = run("parse", "--json", stdin=lines)
    graphs = [json.loads(line) for line in out.splitlines()]
    assert [graph.get("status", "ok") for graph in graphs] == ["ok", "missing_caption", "bad_encoding"]
    for concept in graphs[0]["concepts"]:
        assert caption[concept["start"] : concept["end"]] == concept["text"]
    assert {c["text"] for c in graphs[0]["concepts"] if c["kind"] == "relation"} == {"sitting on"}


def test_questions(run: Run, store: Store, tmp_path: Path) -> None:
    code, out, _ = run("status", store.url, "--json")
    assert code == 0
    assert json.loads(out)["samples"] == {"ok": 120}
    assert json.loads(out)["shards"] == {"committed": 6, "failed": {}}
    code, out, _ = run("stats", store.url, "--json")
    assert {row["kind"] for row in json.loads(out)["concepts"]} == {"object", "attribute", "relation"}
    code, out, _ = run("sql", store.url, "SELECT count(*) AS n FROM samples", "--format", "csv")
    assert (code, out) == (0, "n\n120\n")
    assert run("view", store.url, "--out", str(tmp_path / "v.html"), "--limit", "2")[1].startswith("2 images")
    assert run("compact", store.url, "--out", str(tmp_path / "small"))[0] == 0
    assert (
        run("sql", str(tmp_path / "small"), "SELECT count(*) AS n FROM samples", "--format", "csv")[1]
        == "n\n120\n"
    )
    assert "24 images" in run("cache", store.url, "--out", str(tmp_path / "cache"), "--workers", "1")[1]
    assert run("export", store.url, "--out", str(tmp_path / "c.json"))[0] == 0
    assert run("export", store.url, "--out", str(tmp_path / "c"), "--format", "yolo")[0] == 2


def test_models_says_how_to_get_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MACCO_MODELS", str(tmp_path))
    code, out, _ = run("models")
    assert code == 0
    assert "curl -L" in out
    assert "python -m spacy download en_core_web_sm" in out or "en_core_web_sm\n  here: true" in out
    assert "name: tiny\n  here: true" in out
