"""A store in object storage: a real S3 server on this machine's loopback."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import ClientError
from botocore.exceptions import BotoCoreError

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from benchmarks.faults.server import FAULTS, Faulty, serving  # noqa: E402
from macco.pipeline import lease  # noqa: E402
from macco.pipeline.errors import UserError  # noqa: E402
from macco.pipeline.folder import Folder  # noqa: E402
from macco.pipeline.merge import merge  # noqa: E402
from macco.pipeline.query import query  # noqa: E402
from macco.pipeline.store import Store  # noqa: E402
from macco.preprocess import cli  # noqa: E402
from macco.preprocess.exchange.compact import compact  # noqa: E402
from macco.preprocess.look.status import status  # noqa: E402
from macco.preprocess.look.verify import verify  # noqa: E402
from tests.support.rows import record, tables  # noqa: E402

SETTINGS = {"parser": "p"}
TRIES = 50


@pytest.fixture(scope="module")
def server() -> Iterator[Faulty]:
    """A server of its own, which s3fs finds by the usual variables."""
    with serving() as app:
        yield app


@pytest.fixture
def bucket(server: Faulty) -> Iterator[str]:
    yield "s3://bucket"
    server.rate = 0.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.2)
    monkeypatch.setattr(lease, "PATIENCE", 1.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that s3fs makes."""
    made: list[str] = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        made.append(method)
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return made


def stand_still(store: Store) -> None:
    """As if the writer's process stood still from now on."""
    store._lock._over.set()
    renewed_no_more(store.writer)


def renewed_no_more(writer: str | None) -> None:
    for thread in threading.enumerate():
        if thread.name == writer:
            thread.join()


def captions(store: Store) -> dict[str, list[str]]:
    rows = query(
        store, "SELECT shard, list(caption ORDER BY row) AS captions FROM samples GROUP BY 1"
    ).to_pylist()
    return {row["shard"]: row["captions"] for row in rows}


def test_a_store_is_made_put_together_replaced_and_asked(
    bucket: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW", 60.0)  # what is counted is not to depend on time
    store = Store.create(f"{bucket}/it's [1] store", SETTINGS)
    model = {f"{n:03}": [f"{n} a", f"{n} b"] for n in range(12)}
    del asked[:]
    for name, said in model.items():
        store.commit(name, tables(name, said), record(name))
    assert len(asked) <= 10 * len(model)
    assert captions(store) == model
    merge(store, everything=True)
    assert store.names(".json", "shards") == {"_schema"}
    del asked[:]
    assert captions(store) == model
    assert status(store)["samples"] == {"ok": 24}
    # Two questions, whatever the number of shards: each view that is made is bound to its files' footers.
    assert len(asked) <= 60
    store.stage("003", tables("003", ["again"]), record("003"))
    store.replace(["003"], ["004"])
    model = {name: said for name, said in model.items() if name != "004"} | {"003": ["again"]}
    assert captions(store) == captions(Store.open(store.url)) == model
    assert verify(store)["not whole"] == {}
    store.fs.rm_file(store.path("boxes/003~" + store.shard("003")["file"].partition("~")[2] + ".parquet"))
    assert store.commits().damaged.keys() == {"003"}
    store.close()
    assert not store.exists(lease.NAME)


@pytest.mark.usefixtures("quick")
def test_a_second_writer_is_refused_and_a_dead_one_followed(bucket: str) -> None:
    first = Store.create(f"{bucket}/shared", SETTINGS)
    with pytest.raises(UserError, match="another macco-prep is writing"):
        Store.create(first.url, SETTINGS)
    for name in "ab":
        first.commit(name, tables(name, [name]), record(name))
    stand_still(first)
    second = Store.create(first.url, SETTINGS)
    first._lock.renew()
    worker = Store(first.url, first.writer)  # of the first, in another process
    for stale in (first, worker):
        for act in (stale.commit, stale.stage):
            with pytest.raises(UserError, match="another macco-prep writes to"):
                act("a", tables("a", ["of yesterday"]), record("a"))
        with pytest.raises(UserError, match="another macco-prep writes to"):
            merge(stale, everything=True)
    assert second.commits().damaged == {}
    assert captions(second) == {"a": ["a"], "b": ["b"]}
    first.close()  # which leaves the other's alone
    second.check_writer()
    second.commit("c", tables("c", ["c"]), record("c"))
    second.close()
    with pytest.raises(UserError, match="another macco-prep writes to"):
        first.commit("d", tables("d", ["though nobody holds it now"]), record("d"))
    assert captions(Store.open(first.url)) == {"a": ["a"], "b": ["b"], "c": ["c"]}
    third = Store.create(first.url, SETTINGS)
    writer = third.writer
    del third  # gone without a word
    renewed_no_more(writer)
    Store.create(first.url, SETTINGS).close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("there", [False, True])
def test_a_record_that_is_put_after_the_lease_is_lost_takes_no_other_s_place(
    bucket: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store.create(f"{bucket}/late {there}", SETTINGS)
    if there:
        first.commit("a", tables("a", ["of old"]), record("a"))
    check, seconds = first.check_writer, []

    def late() -> None:
        """Between the question and the record another becomes the writer, and does the same shard."""
        check()
        if not seconds:
            stand_still(first)
            seconds.append(Store.create(first.url, SETTINGS))
            seconds[0].commit("a", tables("a", ["second"]), record("a"))

    monkeypatch.setattr(first, "check_writer", late)
    with pytest.raises(UserError, match="another macco-prep writes to"):
        first.commit("a", tables("a", ["first"]), record("a"))
    assert captions(seconds[0]) == {"a": ["second"]}
    seconds[0].close()


def test_what_a_writer_of_yesterday_puts_does_not_stop_the_one_of_today(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = Store.create(f"{bucket}/today", SETTINGS)
    check = today.check_writer

    def late() -> None:
        check()
        today.put("shards/a.json", b'{"shard": "a", "of": "yesterday"}')

    with monkeypatch.context() as patch:
        patch.setattr(today, "check_writer", lambda: (late(), patch.undo()))
        today.commit("a", tables("a", ["today"]), record("a"))
    assert captions(today) == {"a": ["today"]}
    today.close()


def test_a_put_whose_answer_is_lost_is_done(bucket: str, server: Faulty) -> None:
    folder = Folder(f"{bucket}/lost")
    server.kinds, server.random, server.rate = ("do and drop", "do and refuse"), Random(2), 0.5
    for number in range(5):
        name = f"{number}.json"
        assert folder.put_over(name, b"old", None)
        etag = folder.etag(name)
        assert folder.put_over(name, b"new", etag)
        assert not folder.put_over(name, b"other", None)
        assert not folder.put_over(name, b"other", etag)
        assert folder.read(name) == b"new"


@pytest.mark.usefixtures("quick")
def test_a_replacement_that_is_cut_short_is_seen_by_nobody_and_done_by_the_next_writer(bucket: str) -> None:
    store = Store.create(f"{bucket}/cut", SETTINGS)
    store.commit("a", tables("a", ["a"]), record("a"))
    store.stage("a", tables("a", ["new"]), record("a"))
    store.put("replacing/commit.json", b'{"shards": ["a"], "gone": []}')
    with pytest.raises(UserError, match="are being replaced"):
        Store.open(store.url)
    stand_still(store)
    again = Store.create(store.url, SETTINGS)
    again.close()
    assert captions(Store.open(store.url)) == {"a": ["new"]}


def test_extract_from_and_to_a_bucket(bucket: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from macco.preprocess.cli import app

    corpus = tmp_path / "corpus"
    assert CliRunner().invoke(app, ["demo", str(corpus), "--images", "4", "--shard-size", "2"]).exit_code == 0
    fs = s3fs.S3FileSystem()
    for tar in corpus.glob("*.tar"):
        fs.put_file(str(tar), f"bucket/corpus/{tar.name}")
    command = ["extract", "--shards", f"{bucket}/corpus/*.tar", "--workers", "0", "--device", "cpu", "--out"]
    for _ in range(2):
        done = CliRunner().invoke(app, [*command, f"{bucket}/extracted"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert "0 shards extracted, 2 were there" in done.output
    assert CliRunner().invoke(app, [*command, str(tmp_path / "local")]).exit_code == 0
    here, there = (captions(Store.open(url)) for url in (str(tmp_path / "local"), f"{bucket}/extracted"))
    assert here == there != {}


def test_a_lease_whose_making_was_not_answered_is_held_at_once(bucket: str, server: Faulty) -> None:
    server.kinds, server.random, server.rate = ("do and drop",), Random(1), 0.5
    for number in range(3):
        held = lease.Lease(Folder(f"{bucket}/lease{number}"))  # which would wait for 20 s
        held.release()


@pytest.mark.usefixtures("quick")
def test_what_a_broken_merge_leaves_goes_with_the_next_one(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(f"{bucket}/broken", SETTINGS)
    for name in "ab":
        store.commit(name, tables(name, [name]), record(name))
    store.close()

    def full(*given: object, **more: object) -> None:
        raise OSError("no more")

    def objects() -> list[str]:
        return [name for name in store.fs.find(store.root) if "+" in name]

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        with pytest.raises(UserError, match="no more"):
            compact(Store.open(store.url))
    assert objects() == []
    store.put("boxes/a..b+01234567.parquet", b"of one that was killed")
    compact(Store.open(store.url))
    assert len(objects()) == 4
    assert captions(Store.open(store.url)) == {"a": ["a"], "b": ["b"]}


@pytest.mark.slow
def test_on_a_bad_day_a_command_goes_through_or_says_so_in_one_line(
    bucket: str,
    server: Faulty,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The same command once more makes good what one that failed has left: no row lost, none doubled."""
    store = Store.create(f"{bucket}/bad day", SETTINGS)
    named = {f"{n}": [f"{n} a", f"{n} b"] for n in range(3)}
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # hardly any patience, so that there is something to say
    s3fs.S3FileSystem.clear_instance_cache()
    worker = Store(store.url, store.writer)
    server.kinds, server.random, failed = tuple(FAULTS), Random(5), 0
    server.met.clear()
    for name, said in named.items():
        for _ in range(TRIES):
            server.rate = 0.1
            try:
                worker.commit(name, tables(name, said), record(name))
                break
            except (UserError, BotoCoreError, ClientError):
                failed += 1
    store.close()
    for verb in ("status", "compact", "verify", "compact"):
        for _ in range(TRIES):
            monkeypatch.setattr(sys, "argv", ["macco-prep", verb, store.url])
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main()
            wrong = capfd.readouterr().err.splitlines()
            assert (ended.value.code, len(wrong)) in ((0, 0), (2, 1)), wrong
            if not wrong:
                break
            assert wrong[0].startswith("macco-prep: ")
            failed += 1
    server.rate = 0.0
    s3fs.S3FileSystem.clear_instance_cache()
    assert captions(Store.open(store.url)) == named
    assert verify(Store.open(store.url))["not whole"] == {}
    assert failed > 0
    assert {*FAULTS} <= server.met.keys()
