"""A run on a Ray cluster ends, whatever becomes of workers and nodes, and uses what there is."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.extraction.run import Job, RunConfig, Summary, extract_shards
from macco.preprocess.sources import Shard, SourceImage
from tests.preprocess.extraction.test_run import CONFIG, jobs, new_store, rows

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@dataclass(frozen=True)
class SlowShard(Shard):
    """A shard that takes half a second more."""

    def read(self) -> Iterator[SourceImage]:
        time.sleep(0.5)
        yield from super().read()


@dataclass(frozen=True)
class HangingShard(Shard):
    """A shard whose reader never returns."""

    def read(self) -> Iterator[SourceImage]:
        while True:
            time.sleep(1)


@dataclass(frozen=True)
class StoppedShard(Shard):
    """A shard whose reader stops the whole process that it runs in."""

    def read(self) -> Iterator[SourceImage]:
        os.kill(os.getpid(), 19)
        yield from super().read()


@dataclass(frozen=True)
class LargeShard(Shard):
    """A shard that needs more memory than a process may have."""

    def read(self) -> Iterator[SourceImage]:
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (2**34, before[1]))
        try:
            bytearray(2**35)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        yield from super().read()


def of_kind(kind: type[Shard], job: Job, **changes: Any) -> Job:
    shard = job.shard
    return Job(replace(kind(**{each.name: getattr(shard, each.name) for each in fields(Shard)}), **changes))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The node that the driver is connected to: no CPUs of its own, so that tests add what they need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())  # the workers find this module
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.fixture
def add(cluster: Cluster) -> Iterator[Callable[[int], Any]]:
    """Add nodes of some CPUs, which leave when the test has ended."""
    yield lambda cpus: cluster.add_node(num_cpus=cpus, include_dashboard=False)
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)


def run(cluster: Cluster, store: Store, todo: list[Job], **settings: Any) -> Summary:
    config = RunConfig(ray_address=cluster.address, **({"start_timeout": 90.0} | settings))
    return extract_shards(store, todo, CONFIG, config)


def wait_for_commits(store: Store, count: int, running: "Future[Summary]") -> None:
    while len(store.committed()) < count and not running.done():
        time.sleep(0.02)


def test_more_workers_than_cpus_and_nodes_that_join_and_leave(
    cluster: Cluster, add: Callable[[int], Any], store: Store, corpus: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Four workers asked for and one CPU there; a node joins; then the first one leaves, and all goes on."""
    out = new_store(tmp_path)
    first = add(1)
    todo = [of_kind(SlowShard, job) for job in jobs(corpus)]
    todo += [of_kind(SlowShard, job, name=f"again{number}-{job.shard.name}")
             for number in range(4) for job in jobs(corpus)]  # fmt: skip
    with ThreadPoolExecutor(1) as thread:  # Ray starts nodes in a main thread only
        running = thread.submit(run, cluster, out, todo, workers=4, retries=0)
        wait_for_commits(out, 2, running)
        add(2)
        wait_for_commits(out, 12, running)
        cluster.remove_node(first)
        summary = running.result()
    assert not summary.failed
    assert summary.committed == len(todo)
    assert {name: value for name, value in rows(out).items() if "again" not in name} == rows(store)
    said = capfd.readouterr().err
    there = "the cluster has 1 CPUs and 0 GPUs on 2 nodes"
    assert said.startswith(f"of 4 grounding workers 1 fit: {there}, and nodes that join are used")


def test_shards_that_hang_stop_or_run_out_of_memory_are_given_up_with_their_reasons(
    cluster: Cluster, add: Callable[[int], Any], store: Store, corpus: Path, tmp_path: Path
) -> None:
    add(2)
    out = new_store(tmp_path)
    plain = jobs(corpus)
    bad = [
        of_kind(kind, plain[0], name=name)
        for name, kind in (("hangs", HangingShard), ("stops", StoppedShard), ("large", LargeShard))
    ]
    summary = run(cluster, out, [*bad, *plain], retries=0, shard_timeout=30.0, parse_workers=0)
    assert set(summary.failed) == {"hangs", "stops", "large"} == out.failed()
    assert "the worker hung: no end after 30 s (--shard-timeout)" in summary.failed["hangs"]
    assert "hung" in summary.failed["stops"]
    assert "MemoryError" in summary.failed["large"]
    assert rows(out) == rows(store)


def test_a_run_without_any_room_says_so_and_ends(cluster: Cluster, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no grounding worker is up .*1 of 1 grounding workers wait for 1 CPU"
    ):
        run(cluster, new_store(tmp_path), jobs(corpus), start_timeout=3.0)


def test_gpus_that_no_node_has_are_refused(cluster: Cluster, corpus: Path, tmp_path: Path) -> None:
    config = RunConfig(ray_address=cluster.address, gpus_per_actor=1)
    with pytest.raises(UserError, match="0 GPUs can be had"):
        extract_shards(new_store(tmp_path), jobs(corpus), CONFIG, config)


def test_without_an_address_a_run_has_a_ray_of_its_own(
    cluster: Cluster, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    summary = extract_shards(
        new_store(tmp_path), jobs(corpus)[:1], CONFIG, RunConfig(workers=1, parse_workers=0)
    )
    assert summary.committed == 1
