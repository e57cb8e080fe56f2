"""A store in object storage: a real S3 server on this machine's loopback."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

from macco.pipeline import lease  # noqa: E402
from macco.pipeline.errors import UserError  # noqa: E402
from macco.pipeline.merge import merge  # noqa: E402
from macco.pipeline.query import connect  # noqa: E402
from macco.pipeline.store import Store  # noqa: E402
from macco.preprocess.look.status import status  # noqa: E402
from macco.preprocess.look.verify import verify  # noqa: E402
from tests.support.rows import record, tables  # noqa: E402

SETTINGS = {"parser": "p"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket on a server of its own, which s3fs finds by the usual variables."""
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    given["AWS_ENDPOINT_URL_S3"] = f"http://{host}:{port}"
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    try:
        yield "s3://bucket"
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        s3fs.S3FileSystem.clear_instance_cache()
        running.stop()


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


def captions(store: Store) -> dict[str, list[str]]:
    with connect(store) as connection:
        rows = connection.execute(
            "SELECT shard, list(caption ORDER BY row) FROM samples GROUP BY 1"
        ).fetchall()
    return dict(rows)


def test_a_store_is_made_put_together_replaced_and_asked(bucket: str, asked: list[str]) -> None:
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
    assert len(asked) <= 100  # whatever the number of shards
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
    first.commit("a", tables("a", ["a"]), record("a"))
    first._lock._over.set()  # as if its process stood still
    second = Store.create(first.url, SETTINGS)
    first._lock.renew()
    with pytest.raises(UserError, match="another macco-prep writes to"):
        first.check_writer()
    first.close()  # which leaves the other's alone
    second.check_writer()
    second.commit("b", tables("b", ["b"]), record("b"))
    second.close()
    assert captions(Store.open(first.url)) == {"a": ["a"], "b": ["b"]}
    third = Store.create(first.url, SETTINGS)
    del third  # gone without a word
    Store.create(first.url, SETTINGS).close()


@pytest.mark.usefixtures("quick")
def test_a_replacement_that_is_cut_short_is_seen_by_nobody_and_done_by_the_next_writer(bucket: str) -> None:
    store = Store.create(f"{bucket}/cut", SETTINGS)
    store.commit("a", tables("a", ["a"]), record("a"))
    store.stage("a", tables("a", ["new"]), record("a"))
    store.put("replacing/commit.json", b'{"shards": ["a"], "gone": []}')
    with pytest.raises(UserError, match="are being replaced"):
        Store.open(store.url)
    store._lock._over.set()
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
