"""What is damaged, or of a wrong kind, is one line and exit code 2, whichever command meets it: never a traceback."""

import json
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from macco.pipeline.store import Store
from macco.preprocess import cli as macco_prep
from macco.preprocess.config import ExtractConfig
from macco.preprocess.demo import write_benchmark, write_corpus
from macco.preprocess.exchange.compact import compact
from macco.train import cli as macco_train
from tests.support.rows import record, tables

ROOT = Path(macco_prep.__file__).parent
START = Path(__file__).parent / "fixtures" / "v0.1" / "start"
TINY = ROOT / "models" / "tiny_detector"

SETTINGS = ExtractConfig().settings()

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Give a command line; its exit code, what it said, and what it said of what is wrong."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            (macco_prep if name == "macco-prep" else macco_train).main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capfd.readouterr()

    yield give
    for number, handler in handlers.items():
        signal.signal(number, handler)


def one_line(name: str, given: tuple[int, str, str]) -> str:
    """The one line that a refused command says."""
    code, _, wrong = given
    lines = [line for line in wrong.splitlines() if line.startswith(f"{name}: ")]
    assert code == 2, wrong
    assert len(lines) == 1, wrong
    assert "Traceback" not in wrong
    return lines[0]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = Store.create(str(tmp_path / "store"), SETTINGS)
    for name in "ab":
        made.commit(name, tables(name, ["a dog", "a cat"]), record(name))
    made.close()
    return Path(made.url)


def described(**changes: object) -> Callable[[Path], object]:
    """store.json with other values, or, of None, without."""

    def change(store: Path) -> None:
        said = json.loads((store / "store.json").read_text()) | changes
        (store / "store.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))

    return change


def recorded(**changes: object) -> Callable[[Path], object]:
    """A shard's record that says something of another type."""

    def change(store: Path) -> None:
        file = store / "shards" / "a.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def packed(metadata: dict[str, str] | None) -> Callable[[Path], object]:
    """A store whose pack says other things of its files."""

    def change(store: Path) -> None:
        compact(Store.open(str(store)))
        for file in (store / "packs").glob("[!_]*.parquet"):
            pq.write_table(pq.read_table(file).replace_schema_metadata(metadata), file)

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda store: (store / "samples" / "a.parquet").write_bytes(b"PAR1"),
    "no samples": lambda store: shutil.rmtree(store / "samples"),
    "no schema_version": described(schema_version=None),
    "no settings": described(settings=None),
    "a record {}": lambda store: (store / "shards" / "a.json").write_text("{}"),
    "a record [1]": lambda store: (store / "shards" / "a.json").write_text("[1]"),
    "sizes in a list": recorded(bytes=["x"]),
    "sizes of one table": recorded(bytes={"samples": 1}),
    "a size of null": recorded(bytes={"samples": 1, "concepts": 1, "boxes": None}),
    "a count beyond all": recorded(samples=2**70),
    "statuses of a number": recorded(statuses=1.5),
    "a file elsewhere": recorded(file="../samples/b"),
    "no UTF-8": recorded(dataset="\ud800"),
    "sizes and no counts": recorded(samples=None),
    "a pack without sizes": packed(None),
    "a pack with other sizes": packed({"number": "1", "bytes": "[]"}),
}
LOOK = {  # what is whole is shown, and the exit code says that not all is
    "status": ("macco-prep", "status"),
    "stats": ("macco-prep", "stats"),
    "sql": ("macco-prep", "sql", "SELECT count(*) FROM samples"),
}
MAKE = {
    "compact": ("macco-prep", "compact"),
    "export": ("macco-prep", "export", "--out", "{out}", "--format", "macco-tsv"),
    "cache": ("macco-prep", "cache", "--out", "{out}", "--workers", "1"),
    "negatives": ("macco-train", "negatives"),
    "run": ("macco-train", "run", "--out", "{out}", f"model.name={START}", "model.pretrained=", "device=cpu"),
}


def command(name: str, store: Path) -> tuple[str, ...]:
    program, verb, *rest = (LOOK | MAKE)[name]
    given = ("--store", str(store)) if name == "run" else (str(store),)
    return (program, verb, *given, *(each.format(out=store.parent / "out") for each in rest))


@pytest.mark.parametrize("name", [*LOOK, *MAKE])
@pytest.mark.parametrize("damage", DAMAGE)
def test_of_a_damaged_store(damage: str, name: str, store: Path, say: Say) -> None:
    DAMAGE[damage](store)
    given = command(name, store)
    one_line(given[0], say(*given))
    assert not (store.parent / "out" / "checkpoints").exists()


@pytest.mark.parametrize("name", [*LOOK, "compact", "export", "negatives"])
def test_what_another_system_leaves_in_a_store_is_nobodys(name: str, store: Path, say: Say) -> None:
    for folder in ("samples", "boxes", "shards"):
        (store / folder / "._x.parquet").write_bytes(b"\x00\x05\x16\x07")
        (store / folder / "._x.json").write_bytes(b"\x00\x05\x16\x07")
    code, _, wrong = say(*command(name, store))
    assert (code, wrong) == (0, "")


@pytest.mark.parametrize("verb", ["status", "stats", "compact", "verify"])
def test_of_a_url_whose_package_is_not_here(verb: str, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # of an earlier test
    assert "macco[s3]" in one_line("macco-prep", say("macco-prep", verb, "s3://bucket/store"))


class Program:
    """A pickle that does something when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def _copied(source: Path, out: Path, changes: dict[str, bytes | None]) -> Path:
    """A folder with other files; of None, without."""
    shutil.copytree(source, out)
    for name, data in changes.items():
        (out / name).unlink(missing_ok=True)
        if data is not None:
            (out / name).write_bytes(data)
    return out


def panics(folder: Path) -> bytes:
    """A tokenizer over which the library that reads it panics, in the language that it is written in."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"]["continuing_subword_prefix"] = "x" * 30
    return json.dumps(whole).encode()


def weights(name: str, data: bytes) -> dict[str, bytes | None]:
    return {"open_clip_model.safetensors": None, name: data}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus and a benchmark."""
    folder = tmp_path_factory.mktemp("drawn")
    write_corpus(folder / "corpus", images=1, seed=5)
    write_benchmark(folder / "benchmark" / "demo", images=1, seed=5, split="test")
    return folder


FOLDERS: dict[str, Callable[[bytes], dict[str, bytes | None]]] = {  # of a CLIP to be evaluated
    "a pickle": lambda program: weights("open_clip_pytorch_model.bin", program),
    "no pickle": lambda _: weights("open_clip_pytorch_model.bin", b"no pickle"),
    "no tensors": lambda _: weights("open_clip_pytorch_model.bin", pickle.dumps({"a": 1})),
    "no weights": lambda _: {"open_clip_model.safetensors": None},
    "bad safetensors": lambda _: {"open_clip_model.safetensors": b"\xff" * 64},
    "no JSON": lambda _: {"open_clip_config.json": b"{"},
    "a list": lambda _: {"open_clip_config.json": b"[1]"},
    "no sizes": lambda _: {"open_clip_config.json": b'{"model_cfg": {}, "preprocess_cfg": {}}'},
    "wrong sizes": lambda _: {
        "open_clip_config.json": (START / "open_clip_config.json").read_bytes().replace(b": 3", b': "x"')
    },
    "no model": lambda _: {"open_clip_config.json": b"{}"},
    "a tokenizer that ends its library": lambda _: {"tokenizer.json": panics(START)},
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_of_the_folder_of_a_clip(kind: str, drawn: Path, tmp_path: Path, say: Say) -> None:
    trace = tmp_path / "trace"
    folder = _copied(START, tmp_path / "clip", FOLDERS[kind](pickle.dumps(Program(trace))))
    given = (
        folder,
        "--out",
        tmp_path / "report",
        "--data",
        drawn / "benchmark",
        "--benchmark",
        "demo",
        "--workers",
        0,
        "--device",
        "cpu",
    )
    assert str(folder) in one_line("macco-train", say("macco-train", "eval", *given))
    assert not trace.exists()


FILES: dict[str, bytes] = {  # of a detector's folder
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"[1]",
    "config.json": b"{",
    "preprocessor_config.json": b"[1]",
    "model.safetensors": b"\xff" * 64,
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("data", ["bad", "empty", "random"])
def test_of_the_folder_of_a_detector(kind: str, data: str, drawn: Path, tmp_path: Path, say: Say) -> None:
    content = {"bad": FILES[kind], "empty": b"", "random": bytes(range(256))}[data]
    folder = _copied(TINY, tmp_path / "detector", {kind: content})
    given = ("--shards", f"{drawn}/corpus/*.tar", "--out", tmp_path / "out", "--workers", 0)
    said = say("macco-prep", "extract", *given, "--detector", f"transformers:{folder}", "--device", "cpu")
    assert str(folder) in one_line("macco-prep", said)
