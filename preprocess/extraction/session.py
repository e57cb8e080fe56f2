"""The connection to Ray: a cluster's, or one that is started on this machine for this run alone."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray

from macco.pipeline.cores import cores
from macco.pipeline.errors import UserError
from macco.preprocess.config import ExtractConfig, RunConfig
from macco.preprocess.extraction.resources import nodes_up

OBJECT_STORE_BYTES = 200 * 2**20  # captions and graphs only: image bytes never enter it
PATIENCE = 20.0  # seconds that Ray on this machine has to end by itself


@dataclass(frozen=True)
class Session:
    """What the workers of a run are to be."""

    config: ExtractConfig  # with the device that they use
    gpus: float  # of one grounding worker
    workers: int | None  # asked for; None: as many as the cluster holds
    parse_workers: int | None
    node: str  # where this process is connected: without it the run has ended


@contextmanager
def session(config: ExtractConfig, run: RunConfig, shards: int) -> Iterator[Session]:
    """Connect to Ray, a local one unless an address is given, and leave it in the end, with all that is at work.

    Raises UserError where no cluster answers, or where it lacks what is asked for.
    """
    here = run.ray_address is None
    wants_gpu = config.device == "auto" or config.device.startswith("cuda")
    try:
        if here:
            import torch

            have_gpus = torch.cuda.device_count() if wants_gpu else 0
            gpus = _gpus(run, have_gpus, [have_gpus])
            fit = int(have_gpus / gpus) if gpus else cores()
            workers = max(1, min(run.workers or fit, shards))
            parse_workers = (workers * 4) if gpus else (workers + 1) // 2
            if run.parse_workers is not None:
                parse_workers = run.parse_workers
            _connect(
                address="local",  # whatever cluster may run on this machine
                num_cpus=workers + parse_workers,  # a count of actors, not of cores: every one is to start
                num_gpus=have_gpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
            )
            asked: tuple[int | None, int | None] = (workers, parse_workers)
        else:
            try:
                _connect(address=run.ray_address)
            except (ConnectionError, RuntimeError, ValueError) as error:
                hint = "a cluster with token authentication wants RAY_AUTH_MODE=token in the environment"
                raise UserError(f"no Ray cluster answers at {run.ray_address}: {error} ({hint})") from error
            gpus = _gpus(run, *_cluster_gpus()) if wants_gpu else _gpus(run, 0, [0])
            asked = (min(run.workers, shards) if run.workers else None, run.parse_workers)
        if config.device == "auto":
            config = replace(config, device="cuda" if gpus else "cpu")
        yield Session(config, gpus, *asked, node=ray.get_runtime_context().get_node_id())
    finally:
        _leave(here)


def _cluster_gpus() -> tuple[float, list[float]]:
    gpus = [node.gpus for node in nodes_up()]
    return sum(gpus), gpus


def _gpus(run: RunConfig, have: float, by_node: list[float]) -> float:
    """The GPUs of one grounding worker."""
    gpus = run.gpus_per_actor if run.gpus_per_actor is not None else (1.0 if have else 0.0)
    if gpus > max(by_node, default=0.0):
        most = f", at most {max(by_node):g} on one node" if len(by_node) > 1 else ""
        raise UserError(f"--gpus-per-actor {gpus:g}: {have:g} GPUs can be had{most}; use 0 for the CPU")
    return gpus


def _connect(**options: Any) -> None:
    """ray.init, which sets a handler of SIGTERM of its own that ends the process without a word: ours stays."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except SystemExit:  # of that handler, while it waits
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _leave(here: bool) -> None:
    """Leave the cluster; a local Ray ends, by force where its processes do not answer."""
    timer = threading.Timer(PATIENCE, _kill)
    timer.daemon = True
    if here:
        timer.start()
    try:
        ray.shutdown()
    finally:
        timer.cancel()


def _kill() -> None:
    from ray._private import worker  # no public way ends a Ray that is stopped

    with suppress(Exception):
        worker._global_node.kill_all_processes(check_alive=False, allow_graceful=False)
