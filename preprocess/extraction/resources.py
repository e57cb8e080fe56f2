"""What a Ray cluster has, and how many workers of each kind fit into it."""

from collections.abc import Sequence
from dataclasses import dataclass

import ray


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that is up, and what Ray may use of it."""

    id: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Crew:
    """How many workers a run is to have."""

    grounders: int  # asked for: some of them may have to wait
    placeable: int  # those of them that the cluster can hold
    parsers: int  # those that fit beside these; none: grounding workers parse for themselves


def nodes_up() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    return [
        Node(node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def slots(nodes: Sequence[Node], gpus: float) -> int:
    """How many grounding workers, of one CPU and `gpus` GPUs each, the nodes hold."""
    return sum(
        min(int(node.cpus), int(node.gpus / gpus + 1e-6) if gpus else int(node.cpus)) for node in nodes
    )


def crew(nodes: Sequence[Node], gpus: float, workers: int | None, parse_workers: int | None) -> Crew:
    """Share the CPUs of the nodes out: one for each worker, at least one to ground, the others as they are asked for.

    Without a number asked for there are as many grounding workers as fit: one for each part of a GPU; without GPUs two
    CPUs of three, or all but those that are to parse.
    """
    cpus = sum(int(node.cpus) for node in nodes)
    fit = slots(nodes, gpus)
    to_parse = 0 if gpus else (fit + 1) // 3 if parse_workers is None else parse_workers
    grounders = workers or max(1, fit - to_parse)
    placeable = min(grounders, fit)
    if parse_workers is None:
        parse_workers = 4 * placeable if gpus else (placeable + 1) // 2
    return Crew(grounders, placeable, max(0, min(parse_workers, cpus - placeable)))


def described(nodes: Sequence[Node]) -> str:
    """Say what a cluster has."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'s' * (len(nodes) != 1)}"
