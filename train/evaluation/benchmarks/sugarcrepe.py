"""SugarCrepe: one COCO image, its caption, and a fluent caption that is wrong."""

from collections.abc import Iterator
from pathlib import Path

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean


class SugarCrepe(Benchmark):
    """Subsets add_obj ... swap_att. MACCO's Rel is replace_rel, its Att the mean of the three _att."""

    name = "sugarcrepe"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for name, row in numbered(read_json(path)):
            picture = self.picture("coco_val2017", row["filename"])
            yield Item(subset, name, (picture,), (row["caption"], row["negative_caption"]))

    def figures(self, judged: Judged) -> dict[str, Mean]:
        att = [subset for subset in self.manifest.files if subset.endswith("_att")]
        return {
            "macro": self.macro(judged, self.manifest.files),
            "micro": judged.mean(),
            "MACCO Rel": judged.mean("replace_rel"),
            "MACCO Att": self.macro(judged, att),
            **self.subsets(judged),
        }
