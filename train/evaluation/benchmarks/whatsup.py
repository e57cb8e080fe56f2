"""What's Up: where one thing is with respect to another."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from macco.train.evaluation.benchmarks.base import Benchmark, numbered, read_json
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean, mean_of

OPTIONS: Final = 4  # of A and B; some forks append further negatives
_OPPOSITE: Final = {
    "A": [("left", "right"), ("on", "under")],
    "B": [("left", "right"), ("in-front", "behind")],
}


class WhatsUp(Benchmark):
    """A and B: photographs in sets of four that differ in the preposition alone; COCO and GQA: two captions.

    The official argmax gives a tie to the right answer; the strict figure is given beside it. MACCO's is the
    mean of the three data sets (controlled, COCO, GQA), each the mean of its two parts.
    """

    name = "whatsup"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for number, row in numbered(read_json(path)):
            if subset in _OPPOSITE:
                file = PurePosixPath(row["image_path"])
                things = file.stem.split("_")
                picture = self.picture("whatsup_images", f"{file.parent.name}/{file.name}")
                captions = tuple(row["caption_options"][:OPTIONS])
                # "beer-bottle_left_of_armchair": the set is the two things, the question the preposition.
                yield Item(subset, file.stem, (picture,), captions, f"{things[0]}|{things[-1]}")
            else:
                image, right, wrong = row[:3]
                coco = subset.startswith("COCO")
                picture = (
                    self.picture("coco_val2017", f"{int(image):012d}.jpg")
                    if coco
                    else self.picture("whatsup_gqa", f"{image}.jpg")
                )
                yield Item(subset, number, (picture,), (right, wrong))

    def figures(self, judged: Judged) -> dict[str, Mean]:
        lenient = {subset: judged.mean(subset, criterion="lenient") for subset in self.manifest.files}
        controlled = {
            name: mean for subset in _OPPOSITE for name, mean in _pairs_and_sets(judged, subset).items()
        }
        strict = {f"{subset} strict": mean for subset, mean in self.subsets(judged).items()}
        data_sets = (("A", "B"), ("COCO one", "COCO two"), ("GQA one", "GQA two"))
        overall = mean_of(mean_of(lenient[subset] for subset in pair) for pair in data_sets)
        return {"MACCO What's Up": overall, **lenient, **controlled, **strict}


def _pairs_and_sets(judged: Judged, subset: str) -> dict[str, Mean]:
    """Both of a pair of opposites right, and all four of a set right; only of those that could all be read."""
    chosen = np.flatnonzero(judged.rows(subset))
    right: dict[str, dict[str, bool | None]] = {}
    for row in chosen:
        answer = bool(judged.right["lenient"][row]) if judged.ok[row] else None
        right.setdefault(judged.category[row], {})[judged.name[row].split("_")[1]] = answer
    pairs, sets = [], []
    for answers in right.values():
        both = [[answers.get(one), answers.get(other)] for one, other in _OPPOSITE[subset]]
        pairs += [all(pair) for pair in both if None not in pair]
        if None not in both[0] + both[1]:
            sets.append(all(both[0] + both[1]))
    return {
        f"{subset} pairs": Mean(np.array(pairs, dtype=bool)),
        f"{subset} sets": Mean(np.array(sets, dtype=bool)),
    }
