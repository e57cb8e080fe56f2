"""python -m macco.preprocess: the same as macco-prep."""

from macco.preprocess.cli import main

main()
