"""ColorSwap: two images and two captions of the same words, of which the colour words change places."""

from collections.abc import Iterator
from pathlib import Path

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean
from macco.train.evaluation.rules import two_by_two


class ColorSwap(Benchmark):
    """Winoground's three questions on the test split; the paper's main measure is the group score.

    Rule: Burapacheep et al., Findings of ACL 2024, "we follow the Winoground schema". Layout: the repository's README.
    """

    name = "colorswap"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for _, row in numbered(read_json(path)):
            pictures = tuple(self.picture("colorswap_images", row[key]) for key in ("image_1", "image_2"))
            captions = row["caption_1"], row["caption_2"]
            yield Item(subset, str(row["id"]), pictures, captions, row["caption_source"])

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        return two_by_two(scores)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        return {name: judged.mean(criterion=name) for name in ("group", "text", "image")}
