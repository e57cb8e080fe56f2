"""Many shards: resume, kills, retries, the same rows with and without Ray."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from macco.pipeline.errors import UserError
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.demo import write_corpus
from macco.preprocess.extraction.retry import failed_shards
from macco.preprocess.extraction.run import Job, RunConfig, extract_shards
from macco.preprocess.sources import Shard, SourceImage, plan
from tests.support.commands import Command

CONFIG = ExtractConfig(device="cpu")


def jobs(corpus: Path) -> list[Job]:
    return [Job(shard) for shard in plan([f"{corpus}/*.tar"])]


def new_store(folder: Path) -> Store:
    return Store.create(str(folder / "store"), CONFIG.settings())


def rows(store: Store) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Everything in a store; scores and corners to a precision that the number of threads does not change."""

    def rounded(row: dict[str, Any]) -> dict[str, Any]:
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}

    return {
        shard: {name: [rounded(row) for row in store.table(name, shard).to_pylist()] for name in TABLES}
        for shard in sorted(store.committed())
    }


def extract_command(corpus: Path, out: Path, *more: str) -> Command:
    given = ("extract", "--shards", f"{corpus}/*.tar", "--out", str(out), "--device", "cpu", *more)
    return Command("macco-prep", *given)


def wait_for_commit(store: Path, process: Command, count: int = 1) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((store / "shards").glob("[!._]*.json"))) >= count:  # not what is still being written
            return
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"


SHARDS = 40  # enough that a run is still at work when a slow machine gets round to killing it


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """A corpus of many shards, and the store that an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("many")
    write_corpus(folder / "corpus", images=2 * SHARDS, seed=3, shard_size=2)
    calm = new_store(folder)
    extract_shards(calm, jobs(folder / "corpus"), CONFIG, RunConfig(workers=0))
    return folder / "corpus", calm


@pytest.mark.processes
def test_kill_9_of_the_driver_then_the_same_command(many: tuple[Path, Store], tmp_path: Path) -> None:
    corpus, calm = many
    out = tmp_path / "store"
    for commits in (1, 5):
        process = extract_command(corpus, out, "--workers", "0")
        wait_for_commit(out, process, commits)
        process.send_signal(signal.SIGKILL)
        process.wait()
        partial = Store.open(str(out)).committed()
        assert commits <= len(partial) < SHARDS
    done = extract_command(corpus, out, "--workers", "0")
    assert done.wait() == 0, done.err
    assert f"{len(partial)} were there" in done.out
    assert rows(Store.open(str(out))) == rows(calm)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("workers", "number", "code"), [("0", "SIGINT", 130), ("0", "SIGTERM", 143), ("1", "SIGTERM", 143)]
)
def test_a_signal_ends_with_one_line_its_exit_code_and_nothing_left_behind(
    many: tuple[Path, Store], tmp_path: Path, workers: str, number: str, code: int
) -> None:
    corpus, _ = many
    out = tmp_path / "store"
    process = extract_command(corpus, out, "--workers", workers, "--retries", "0")
    wait_for_commit(out, process)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.Signals[number])
    assert process.wait(60) == code
    *said, last = process.err.splitlines()
    assert last == "macco-prep: interrupted; what is done is kept, and the same command can be given again"
    assert all("wait for" in line for line in said)  # on a machine so slow that a start is worth a word
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
    assert not list(out.rglob(".tmp-*"))
    Store.create(str(out), CONFIG.settings()).close()  # nobody holds it


@dataclass(frozen=True)
class DeadlyShard(Shard):
    """A shard whose reader kills the process it runs in."""

    def read(self) -> Iterator[SourceImage]:
        os._exit(9)


@dataclass(frozen=True)
class BrokenShard(Shard):
    """A shard that cannot be read."""

    def read(self) -> Iterator[SourceImage]:
        raise OSError("the disk is on fire")


def kill_one_grounder(store: Store, stop: threading.Event, killed: list[int]) -> None:
    """After the first commit, kill -9 an actor process that grounds."""
    while not stop.is_set():
        if store.committed():
            for process in psutil.Process().children(recursive=True):  # and no other run's
                if process.name().startswith("ray::Grounder"):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.01)


@pytest.mark.processes
def test_on_ray_with_a_killed_actor_a_deadly_and_a_broken_shard(
    many: tuple[Path, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One Ray run, since starting Ray costs seconds: rows equal those made without Ray and without kills."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # the workers find this module
    corpus, calm = many
    out = new_store(tmp_path)
    todo = jobs(corpus)
    deadly = Job(DeadlyShard("d", "deadly", "none.tar", "webdataset"))
    broken = Job(BrokenShard("d", "broken", "none.tar", "webdataset"))
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_one_grounder, args=(out, stop, killed))
    killer.start()
    try:
        run = RunConfig(workers=2, parse_workers=1, retries=1)
        summary = extract_shards(out, [*todo[:2], deadly, *todo[2:4], broken, *todo[4:]], CONFIG, run)
    finally:
        stop.set()
        killer.join()
    assert killed, "no actor was killed: the test shows nothing"
    assert set(summary.failed) == {"deadly", "broken"} == out.failed()
    assert "the disk is on fire" in out.failure("broken")["error"]
    assert "died" in out.failure("deadly")["error"]
    assert rows(out) == rows(calm)
    assert {job.shard.name for job in failed_shards(out)} == {"deadly", "broken"}


def test_a_failed_shard_does_not_stop_the_others_and_ends_with_exit_code_1(
    corpus: Path, tmp_path: Path
) -> None:
    out = new_store(tmp_path)
    broken = Job(BrokenShard("d", "broken", "none.tar", "webdataset"))
    summary = extract_shards(out, [broken, *jobs(corpus)[:1]], CONFIG, RunConfig(workers=0, retries=1))
    assert summary.committed == 1
    assert out.failure("broken")["tries"] == 2
    assert "disk is on fire" in summary.failed["broken"]


def test_where_a_failure_cannot_be_noted_one_line_says_so(tmp_path: Path) -> None:
    out = new_store(tmp_path)
    (tmp_path / "store" / "failed").rmdir()
    broken = Job(BrokenShard("d", "broken", "none.tar", "webdataset"))
    with pytest.raises(UserError, match="cannot write to"):
        extract_shards(out, [broken], CONFIG, RunConfig(workers=0, retries=0))


def test_a_shard_of_the_same_name_from_elsewhere_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = new_store(tmp_path)
    first = jobs(corpus)[:1]
    extract_shards(out, first, CONFIG, RunConfig(workers=0))
    other = tmp_path / "other" / f"{first[0].shard.name}.tar"
    other.parent.mkdir()
    other.write_bytes(Path(first[0].shard.url).read_bytes())
    with pytest.raises(UserError, match="use another --out"):
        extract_shards(out, [Job(shard) for shard in plan([str(other)])], CONFIG, RunConfig(workers=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "--shards", "nowhere/*.tar", "--out", "store"], "nowhere"),
        (["extract", "--out", "store"], "--shards"),
        (["extract", "--shards", "{corpus}/*.tar", "--out", "store", "--parser", "en_nothing"], "en_nothing"),
        (
            ["extract", "--shards", "{corpus}/*.tar", "--out", "store", "--detector", "groundingdino:swint"],
            "swint",
        ),
        (["extract", "--shards", "{corpus}/*.tar", "--out", "store", "--detector", "yolo"], "yolo"),
        (["extract", "--shards", "{corpus}/*.tar", "--out", "store", "--rules", "none"], "--rules"),
        (["extract", "--shards", "{corpus}/*.tar", "--out", "/proc/nothing/store"], "cannot write"),
        (["extract", "--shards", "{corpus}/*.tar", "--out", "store", "--workers", "-1"], "--workers"),
        (["extract", "--manifest", "no_such_corpus", "--out", "store"], "no_such_corpus"),
        (["sql", "nostore", "SELECT 1"], "not a concept store"),
    ],
)
def test_a_users_mistake_is_one_line_exit_2_and_nothing_written(
    arguments: list[str], message: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from macco.preprocess.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MACCO_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(sys, "argv", ["macco-prep", *(word.format(corpus=corpus) for word in arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert message in errors
    assert list(tmp_path.iterdir()) == []
