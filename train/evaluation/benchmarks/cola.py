"""COLA, multi-object setting: two images, two captions with the attributes exchanged."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean
from macco.train.evaluation.rules import two_by_two


class Cola(Benchmark):
    """The published accuracy: each caption must prefer its image. The other direction is given beside it."""

    name = "cola"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for name, (first, caption, second, other) in numbered(read_json(path)):
            pictures = tuple(
                self.picture("cola_images", PurePosixPath(urlparse(url).path).name) for url in (first, second)
            )
            yield Item(subset, name, pictures, (caption, other))

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        return two_by_two(scores)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        return {
            "accuracy": judged.mean(criterion="image"),
            "text": judged.mean(criterion="text"),
            "group": judged.mean(criterion="group"),
        }
