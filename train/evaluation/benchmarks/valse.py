"""VALSE: a caption against its foil, in eleven pieces; only pairs that people confirmed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.bundle import bundle
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Judged, Mean, mean_of

VOTES: Final = 2  # of three annotators must prefer the caption

_BY_SOURCE: Final = {
    "coco2017": "coco_val2017",
    "coco_2017": "coco_val2017",
    "SWiG": "swig",
    "visual7w": "visual7w",
}
_BY_PREFIX: Final = {
    "COCO_train2014_": "coco_train2014",
    "COCO_val2014_": "coco_val2014",
    "VisualDialog_val2018_": "visdial_val2018",
}


class Valse(Benchmark):
    """Macro over the eleven files; MACCO's Rel is mean(mean(actant-swap, action-replacement), relations)."""

    name = "valse"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for name, row in numbered(read_json(path)):
            if "image_path" in row:  # the MACCO authors' form, of pairs that are chosen already
                root = self.places.root / bundle().benchmarks[self.name].roots[subset]
                picture = Picture(str(root / row["image_path"]))
                yield Item(subset, name, (picture,), (row["pos_caption"], row["neg_caption"]))
            elif row["mturk"]["caption"] >= VOTES:
                yield Item(subset, name, (self._picture(row),), (row["caption"], row["foil"]))

    def _picture(self, row: Any) -> Picture:
        file = row["image_file"]
        prefixed = (name for prefix, name in _BY_PREFIX.items() if file.startswith(prefix))
        return self.picture(next(prefixed, None) or _BY_SOURCE[row["dataset"]], file)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        actions = self.macro(judged, ["actant-swap", "action-replacement"])
        return {
            "macro": self.macro(judged, self.manifest.files),
            "micro": judged.mean(),
            "MACCO Rel": mean_of([actions, judged.mean("relations")]),
            **self.subsets(judged),
        }
