"""MMVP-VLM: pairs of images that CLIP sees as nearly the same, each with its statement, in nine visual patterns."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from macco.train.evaluation.benchmarks.base import Benchmark, each, read_csv
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean, mean_of
from macco.train.evaluation.rules import two_by_two

PROMPT = "a photo of "


class MmvpVlm(Benchmark):
    """A pair is right if each of its two statements, after "a photo of ", prefers its own image; mean over patterns.

    Rule: evaluate_vlm.py of the repository, which takes rows two by two; a tie goes to the second image there, and is
    wrong here. Others report the direction from image to statement: "text" and "group" are given beside.
    """

    name = "mmvp_vlm"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        rows = list(read_csv(path))
        for _, pair in each(zip(rows[::2], rows[1::2], strict=True), "pair"):
            first, second = pair
            pictures = tuple(
                self.picture("mmvp_vlm_images", str(PurePosixPath(row["Type"], f"{row['Question ID']}.jpg")))
                for row in pair
            )
            captions = tuple(row["Statement"] and PROMPT + row["Statement"] for row in pair)
            name = f"{first['Question ID']}-{second['Question ID']}"
            yield Item(subset, name, pictures, captions, first["Type"])

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        return two_by_two(scores)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        patterns = {
            pattern: judged.mean(category=pattern, criterion="image") for pattern in judged.categories()
        }
        others = {name: judged.mean(criterion=name) for name in ("text", "group")}
        return {"pairs": mean_of(patterns.values()), **others, **patterns}
