"""The two kinds of Ray actors: one parses captions, the other does everything else of a shard."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.shard import Extractor, Job
from macco.preprocess.graph.parser import Parsed
from macco.preprocess.graph.parser import Parser as Graphs
from macco.preprocess.graph.parsers import load_parser


class _Actor:
    """Starts without its models, so that to be placed and to be up are two things."""

    def __init__(self, config: ExtractConfig) -> None:
        self.config = config

    def place(self) -> tuple[str, int]:
        """Where it runs: the node's id, the process's."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    @cached_property
    def graphs(self) -> Graphs:
        return load_parser(self.config.parser, self.config.rules)


class Parser(_Actor):
    """Parses captions."""

    def ready(self) -> None:
        """Return once the model is loaded, and whenever asked: what answers is alive."""
        _ = self.graphs

    def parse(self, captions: Sequence[str], names: Sequence[str]) -> Parsed:
        return self.graphs.parse(captions, names)


class Grounder(_Actor):
    """Extracts shards: reads, has the captions parsed elsewhere, grounds, commits."""

    def __init__(self, config: ExtractConfig, store_url: str, writer: str | None) -> None:
        """writer: id of the driver's lease; once that is lost nothing is committed any more."""
        super().__init__(config)
        self._store = Store(store_url, writer)
        self._thread = ThreadPoolExecutor(1, "macco-parse")
        self._parser: Any = None

    @cached_property
    def extractor(self) -> Extractor:
        return Extractor(self.config, self._parse)

    def ready(self) -> None:
        """Return once the models are loaded."""
        _ = self.extractor

    def commit(self, job: Job, parser: Any) -> dict[str, int]:
        """Do a job, its captions parsed by the actor `parser`; without one, or where that dies, by this process."""
        self._parser = parser
        return self.extractor.commit(self._store, job)

    def _parse(self, captions: Sequence[str], names: Sequence[str]) -> "Future[Parsed]":
        return self._thread.submit(self._graphs_of, captions, names)

    def _graphs_of(self, captions: Sequence[str], names: Sequence[str]) -> Parsed:
        if self._parser is not None:
            try:
                parsed: Parsed = ray.get(self._parser.parse.remote(captions, names))
                return parsed
            except RayTaskError:
                raise
            except RayError:
                self._parser = None
        return self.graphs.parse(captions, names)
