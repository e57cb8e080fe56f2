"""EqBen: two frames of a video, or two renderings, that differ in little, each with its caption."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macco.train.evaluation.benchmarks.base import Benchmark, each, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean, mean_of
from macco.train.evaluation.rules import two_by_two


class EqBen(Benchmark):
    """Winoground's three questions, on the 10 % subset and on the whole; by source, the first folder of an image.

    Rule: evaluate_eqben_locally.py of the repository. Where an item has several captions the first is taken, as in
    its eqben_utils.py, which also says how the files nest: rows are looked for at any depth. Frames of YouCook2 are
    NumPy arrays, blue first.
    """

    name = "eqben"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for number, row in each(_rows(read_json(path))):
            images = [_field(row, "image", place) for place in (0, 1)]
            captions = tuple(_first(_field(row, "caption", place)) for place in (0, 1))
            pictures = tuple(self.picture("eqben_images", image) for image in images)
            yield Item(subset, str(number), pictures, captions, images[0].split("/")[0])

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        return two_by_two(scores)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        found = {}
        for subset in self.manifest.files:
            sources = judged.categories(subset)
            for name in ("group", "text", "image"):
                found[f"{subset} {name}"] = judged.mean(subset, criterion=name)
                parts = {source: judged.mean(subset, source, name) for source in sources}
                found[f"{subset} {name}, macro over sources"] = mean_of(parts.values())
                found |= {f"{subset} {name} {source}": mean for source, mean in parts.items()}
        return found


def _rows(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with two images, in the file's order."""
    if isinstance(node, dict) and ("image0" in node or "image_0" in node):
        yield node
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _rows(inner)
    else:
        raise TypeError(f"{node!r} where a pair of images should be")


def _field(row: dict[str, Any], name: str, place: int) -> Any:
    return row[f"{name}{place}"] if f"{name}{place}" in row else row[f"{name}_{place}"]


def _first(captions: Any) -> Any:
    return captions[0] if isinstance(captions, list) else captions
