"""How well a model tells compositions apart: benchmarks, their exact scoring, reports, comparisons, leakage."""
