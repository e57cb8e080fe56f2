"""VL-CheckList: relations and attributes, each type from several sources."""

from collections.abc import Iterator
from pathlib import Path

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean, mean_of


class VlCheckList(Benchmark):
    """Subsets "rel action swig", "att color vg", ... All captions of a row are used, each pair an item.

    The official script takes each row's first pair alone (it differs for SWiG, with three pairs a row):
    the figures that end in "first pairs".
    """

    name = "vlchecklist"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        collection = {"swig": "swig", "hake": "hake"}.get(subset.split()[-1], "vg")  # VAW's images are VG's
        for name, row in numbered(read_json(path)):
            # [image, captions], or one mapping a pair: the MACCO authors' form.
            image, captions = (row["image_path"], row) if isinstance(row, dict) else row
            pairs = zip(_texts(captions["POS"]), _texts(captions["NEG"]), strict=True)
            for pair, texts in enumerate(pairs):
                category = "first" if pair == 0 else ""
                yield Item(subset, f"{name}/{pair}", (self.picture(collection, image),), texts, category)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        averages = self._averages(judged) | {
            f"{name} first pairs": mean for name, mean in self._averages(judged, "first").items()
        }
        return averages | self.subsets(judged)

    def _averages(self, judged: Judged, category: str | None = None) -> dict[str, Mean]:
        def mean(subset: str) -> Mean:
            return judged.mean(subset, category)

        actions = mean_of(mean(f"rel action {source}") for source in ("hake", "swig", "vg"))
        types = ("action", "color", "material", "size", "state")
        return {
            "MACCO Rel": mean_of([actions, mean("rel spatial vg")]),
            "MACCO Att": mean_of(
                mean_of([mean(f"att {kind} vaw"), mean(f"att {kind} vg")]) for kind in types
            ),
        }


def _texts(one_or_more: str | list[str]) -> list[str]:
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more
