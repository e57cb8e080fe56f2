"""SugarCrepe++: two captions that are right in different words, and one that is wrong in nearly the same."""

from collections.abc import Iterator
from pathlib import Path

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean


class SugarCrepePP(Benchmark):
    """Image: both positives beat the negative. Text: the positives are nearer to each other than to the negative."""

    name = "sugarcrepe_pp"
    texts = True

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for name, row in numbered(read_json(path)):
            captions = row["caption"], row["caption2"], row["negative_caption"]
            yield Item(subset, name, (self.picture("coco_val2017", row["filename"]),), captions)

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        first, second, negative = scores[:, 0].T
        judged = {
            "image": (first > negative) & (second > negative),
            "tie": (first == negative) | (second == negative),
        }
        if between is not None:
            positives, first_negative, second_negative = between.T
            judged["text"] = (positives > first_negative) & (positives > second_negative)
            judged["tie"] = judged["tie"] | (positives == first_negative) | (positives == second_negative)
        return judged

    def figures(self, judged: Judged) -> dict[str, Mean]:
        criteria = ["image", "text"] if "text" in judged.right else ["image"]
        macro = {name: self.macro(judged, self.manifest.files, name) for name in criteria}
        by_subset = {
            f"{subset} {name}": judged.mean(subset, criterion=name)
            for subset in self.manifest.files
            for name in criteria
        }
        return macro | by_subset
