"""Benchmarks by name: those of their own files, retrieval, classify:NAME and probe:NAME."""

from collections.abc import Callable, Sequence
from typing import Final

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks import BENCHMARKS
from macco.train.evaluation.classification import classification_figures, run_classification, run_probe
from macco.train.evaluation.encoder import DualEncoder
from macco.train.evaluation.item import Picture
from macco.train.evaluation.judged import Judged, Mean
from macco.train.evaluation.manifest import Places, known_benchmarks
from macco.train.evaluation.retrieval import COLLECTIONS, retrieval_figures, retrieval_pictures, run_retrieval
from macco.train.evaluation.run import Outcome, require_images, run_benchmark
from macco.train.evaluation.scorer import Scorer

ALL: Final = "all"
CLASSIFY: Final = "classify:"
PROBE: Final = "probe:"


class FeaturesNeededError(UserError):
    """A benchmark of every image with every text, asked of a model that scores pairs one by one."""


def expand(names: Sequence[str]) -> list[str]:
    """The benchmarks meant, each once; "all" is every described one.

    Raises UserError for a name that is not known.
    """
    known = known_benchmarks()
    wanted = [name for given in names for name in (known if given == ALL else [given])]
    for name in wanted:
        if name not in known and not name.startswith((CLASSIFY, PROBE)):
            raise UserError(
                f"no benchmark is called {name!r}; there are {', '.join(known)}, classify:DATASET, probe:DATASET"
            )
    return list(dict.fromkeys(wanted))


def run(name: str, scorer: Scorer, places: Places, templates: str = "openai") -> Outcome:
    """Run one benchmark.

    Raises:
        MissingDataError: its data is not there.
        NoImagesError: none of its images is there.
        FeaturesNeededError: it needs features, and the scorer is not a dual encoder.
    """
    if name in BENCHMARKS:
        benchmark = BENCHMARKS[name](places)
        items = benchmark.items()
        require_images(benchmark.manifest, places, (picture for item in items for picture in item.pictures))
        return run_benchmark(scorer, benchmark, items)
    if not isinstance(scorer, DualEncoder):
        raise FeaturesNeededError(f"{name} compares every image with every text: it needs a dual encoder")
    if name.startswith(CLASSIFY):
        return run_classification(scorer, name.removeprefix(CLASSIFY), places, templates)
    if name.startswith(PROBE):
        return run_probe(scorer, name.removeprefix(PROBE), places)
    return run_retrieval(scorer, name, places)


def figures_of(name: str, places: Places) -> Callable[[Judged], dict[str, Mean]]:
    """How a benchmark's figures are computed from its judged items."""
    if name in BENCHMARKS:
        return BENCHMARKS[name](places).figures
    return retrieval_figures if name in COLLECTIONS else classification_figures


def pictures_of(name: str, places: Places) -> tuple[list[Picture], list[str]]:
    """Every picture that a benchmark of official files uses, and lines about files of it that are not there.

    Raises:
        MissingDataError: its files are not there.
    """
    if name in BENCHMARKS:
        benchmark = BENCHMARKS[name](places)
        return [picture for item in benchmark.items() for picture in item.pictures], benchmark.absent
    if name in COLLECTIONS:
        return retrieval_pictures(name, places), []
    raise UserError(f"{name} has no file names to look for: audit a described benchmark")
