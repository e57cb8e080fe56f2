"""The demo corpus: drawn scenes with captions whose concepts and boxes are known exactly."""

from preprocess.demo.corpus import write_corpus

__all__ = ["write_corpus"]
