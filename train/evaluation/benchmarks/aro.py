"""ARO, VG-Relation and VG-Attribution: who does what to whom, and which attribute is whose, in a crop."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean, mean_of

LEAST: Final = 25  # items that a pair of attributes needs to count as a class


class _Cropped(Benchmark):
    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for name, row in numbered(read_json(path)):
            crop = row["bbox_x"], row["bbox_y"], row["bbox_w"], row["bbox_h"]
            picture = self.picture("aro_images", row["image_path"], crop)
            captions = row["true_caption"], row["false_caption"]
            yield Item(subset, name, (picture,), captions, self.category(row))

    @abstractmethod
    def category(self, row: Any) -> str:
        """What a row's answer is averaged with: its relation, or its pair of attributes."""


class AroRelation(_Cropped):
    """Macro over relations, without those that hold both ways round (as the official notebook drops them)."""

    name = "aro_relation"

    def category(self, row: Any) -> str:
        return str(row["relation_name"])

    def figures(self, judged: Judged) -> dict[str, Mean]:
        symmetric = set(self.manifest.lists["symmetric"])
        by_relation = {
            relation: judged.mean(category=relation)
            for relation in judged.categories()
            if relation not in symmetric
        }
        return {"macro": mean_of(by_relation.values()), "micro, all relations": judged.mean(), **by_relation}


class AroAttribution(_Cropped):
    """Macro over pairs of attributes with at least 25 items."""

    name = "aro_attribution"

    def category(self, row: Any) -> str:
        return "_".join(row["attributes"])

    def figures(self, judged: Judged) -> dict[str, Mean]:
        classes = judged.categories(least=LEAST)
        return {
            "macro": mean_of(judged.mean(category=pair) for pair in classes),
            "micro, all pairs": judged.mean(),
        }
