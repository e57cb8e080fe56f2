"""CREPE: a crop of Visual Genome, its caption, and hard negatives of the caption made from the scene graph."""

from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from macco.train.evaluation.benchmarks.base import Benchmark, read_csv
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Judged, Mean

FOLDERS: Final = ("VG_100K", "VG_100K_2")  # Visual Genome's images lie in two
PRODUCTIVITY: Final = ("atom", "swap", "negate")


class Crepe(Benchmark):
    """R@1 of the caption among its own hard negatives. Productivity: files by kind and complexity, five negatives a
    row. Systematicity: files by training corpus, two lists a row (atom, comp), of which an empty one asks nothing.

    Rule: crepe_eval_utils.py and crepe_prod_eval_clip.py of the repository (the caption comes first, a sort decides
    ties; here they are wrong), kinds and complexities averaged with equal weight. Its README: systematicity is for
    models trained on CC12M, YFCC15M or LAION-400M alone.
    """

    name = "crepe"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        lists = ["hard_negs"]
        if subset.endswith("compounds"):
            lists = ["valid_hard_negs_atom", "valid_hard_negs_comp"]
        for number, row in enumerate(read_csv(path)):
            for column in lists:
                if negatives := literal_eval(row[column]):
                    kind = column.removeprefix("valid_hard_negs_") if len(lists) > 1 else ""
                    name = f"{number}/{kind}" if kind else str(number)
                    yield Item(subset, name, (self._crop(row),), (row["caption"], *negatives), kind)

    def _crop(self, row: Any) -> Picture:
        x, y, width, height = (int(float(row[key])) for key in ("x", "y", "width", "height"))
        image = f"{int(float(row['image_id']))}.jpg"
        paths = [self.picture("vg", f"{folder}/{image}", (x, y, width, height)) for folder in FOLDERS]
        return next((picture for picture in paths if Path(picture.source).is_file()), paths[0])

    def figures(self, judged: Judged) -> dict[str, Mean]:
        of = {
            kind: [subset for subset in self.manifest.files if subset.startswith(kind)]
            for kind in PRODUCTIVITY
        }
        by_kind = {kind: self.macro(judged, subsets) for kind, subsets in of.items()}
        compounds = {
            f"{subset} {kind}": judged.mean(subset, kind)
            for subset in self.manifest.files
            if subset.endswith("compounds")
            for kind in ("atom", "comp")
        }
        productivity = [subset for subsets in of.values() for subset in subsets]
        return {
            "productivity": self.macro(judged, productivity),
            **by_kind,
            **compounds,
            **{subset: judged.mean(subset) for subset in productivity},
        }
