"""How many workers of each kind a cluster holds."""

from hypothesis import given
from hypothesis import strategies as st

from macco.preprocess.extraction.resources import Node, crew, described, slots

NODES = st.lists(
    st.builds(Node, st.just("n"), st.integers(0, 9).map(float), st.sampled_from([0.0, 1.0, 2.0, 8.0])),
    max_size=4,
)
ASKED = st.none() | st.integers(1, 12)


@given(NODES, st.sampled_from([0.0, 0.5, 1.0, 2.0]), ASKED, st.none() | st.integers(0, 12))
def test_what_is_placed_fits_and_grounding_comes_first(
    nodes: list[Node], gpus: float, workers: int | None, parse_workers: int | None
) -> None:
    made = crew(nodes, gpus, workers, parse_workers)
    assert made.grounders == workers or workers is None
    assert made.grounders >= 1
    assert made.placeable == min(made.grounders, slots(nodes, gpus))
    assert made.placeable + made.parsers <= sum(node.cpus for node in nodes)
    assert parse_workers is None or made.parsers <= parse_workers


@given(st.integers(1, 200))
def test_by_default_every_cpu_has_a_worker(cpus: int) -> None:
    made = crew([Node("n", cpus, 0)], 0, None, None)
    assert 0 <= cpus - made.placeable - made.parsers <= 1
    assert made.parsers <= made.placeable


def test_small_clusters() -> None:
    """On one CPU, and with fewer than five CPUs a GPU, a run used to wait for ever for its workers."""
    assert crew([Node("n", 1, 0)], 0, None, None).placeable == 1
    assert crew([Node("n", 1, 0)], 0, None, None).parsers == 0
    gpu = crew([Node("n", 3, 2)], 1, None, None)
    assert (gpu.grounders, gpu.placeable, gpu.parsers) == (2, 2, 1)
    assert crew([Node("n", 2, 0)], 0, None, 0).placeable == 2
    asked = crew([Node("n", 2, 0)], 0, 3, None)
    assert (asked.grounders, asked.placeable, asked.parsers) == (3, 2, 0)


def test_a_gpu_that_lies_on_two_nodes_is_none() -> None:
    assert slots([Node("a", 8, 0.5), Node("b", 8, 0.5)], 1) == 0
    assert described([Node("a", 8, 1), Node("b", 8, 1)]) == "16 CPUs and 2 GPUs on 2 nodes"
