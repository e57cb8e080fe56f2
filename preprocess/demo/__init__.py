"""The demo corpus: drawn scenes with captions whose concepts and boxes are known exactly; and its benchmark."""

from macco.preprocess.demo.benchmark import write_benchmark
from macco.preprocess.demo.corpus import write_corpus

__all__ = ["write_benchmark", "write_corpus"]
