"""python -m macco.train: the same as macco-train."""

from macco.train.cli import main

main()
