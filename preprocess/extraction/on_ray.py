"""The Ray actors of a run: CPU actors that parse, CPU or GPU actors that ground and commit."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.run import Job, RunConfig
from macco.preprocess.extraction.shard import Extractor, Graphs, parse_here

OBJECT_STORE_BYTES = 200 * 2**20  # captions and graphs only: image bytes never enter it


class Parser:
    """Parses captions. Stateless, so Ray may restart it."""

    def __init__(self, config: ExtractConfig) -> None:
        self._parse = parse_here(config)

    def parse(self, captions: Sequence[str]) -> Graphs:
        return self._parse(captions)()


class Grounder:
    """Extracts shards: reads, has the captions parsed elsewhere, grounds, commits."""

    def __init__(self, store_url: str, config: ExtractConfig, parser: Any) -> None:
        def parse(captions: Sequence[str]) -> Any:
            ref = parser.parse.remote(captions)
            return lambda: ray.get(ref)

        self._store = Store(store_url)
        self._extractor = Extractor(config, parse)

    def ready(self) -> bool:
        """Return once the models are loaded."""
        return True

    def commit(self, job: Job) -> dict[str, int]:
        return self._extractor.commit(self._store, job.shard, job.redo)


@dataclass
class Actors:
    """Starts grounding actors, the first ones and those that take a dead one's place."""

    store_url: str
    config: ExtractConfig
    gpus: float
    count: int
    parsers: list[Any]
    started: int = 0

    def all(self) -> list[Any]:
        return [self.one() for _ in range(self.count)]

    def one(self) -> Any:
        parser = self.parsers[self.started % len(self.parsers)]
        self.started += 1
        actor = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(Grounder)
        return actor.remote(self.store_url, self.config, parser)

    def stop(self) -> None:
        """Leave the cluster; a local Ray ends, and with it whatever is still at work."""
        ray.shutdown()


def start_actors(store_url: str, config: ExtractConfig, run: RunConfig, shards: int) -> Actors:
    """Connect to Ray (a local one unless an address is given) and start the parsing actors.

    Raises UserError where no cluster answers, or where it lacks what is asked for.
    """
    here = run.ray_address is None
    wants_gpu = config.device == "auto" or config.device.startswith("cuda")
    if here:
        import torch

        have_gpus = float(torch.cuda.device_count()) if wants_gpu else 0.0
    else:
        try:
            ray.init(address=run.ray_address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "a cluster with token authentication wants RAY_AUTH_MODE=token in the environment"
            raise UserError(f"no Ray cluster answers at {run.ray_address}: {error} ({hint})") from error
        have_gpus = float(ray.cluster_resources().get("GPU", 0)) if wants_gpu else 0.0
    gpus = run.gpus_per_actor if run.gpus_per_actor is not None else (1.0 if have_gpus else 0.0)
    if gpus > have_gpus:
        raise UserError(f"--gpus-per-actor {gpus:g}: {have_gpus:g} GPUs can be had; use 0 for the CPU")
    if gpus:
        fit = int(have_gpus / gpus)
    else:
        fit = (
            len(os.sched_getaffinity(0))
            if here
            else max(1, int(ray.cluster_resources().get("CPU", 1)) * 2 // 3)
        )
    count = max(1, min(run.workers or fit, shards))
    parse_count = run.parse_workers or ((count * 4) if gpus else (count + 1) // 2)
    if here:
        ray.init(
            num_cpus=count + parse_count,  # a count of actors, not of cores: every one of them is to start
            num_gpus=int(have_gpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
        )
    if config.device == "auto":
        config = replace(config, device="cuda" if gpus else "cpu")
    parser = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=1)(Parser)
    return Actors(store_url, config, gpus, count, [parser.remote(config) for _ in range(parse_count)])
