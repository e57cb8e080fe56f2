"""SVO-Probes: one sentence, the image that it describes, and one whose subject, verb or object differs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from macco.train.evaluation.benchmarks.base import Benchmark, read_csv
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean, joined, mean_of
from macco.train.evaluation.rules import first_best

KINDS: Final = ("subj", "verb", "obj")


class SvoProbes(Benchmark):
    """The sentence must score its own image above the other one; "all" over the rows of exactly one kind.

    Source of the kinds and of leaving out rows of two: the notebook in the repository. The paper (Hendricks and
    Nematzadeh, Findings of ACL 2021) asks "do they match, yes or no", which a similarity without a threshold does not
    answer: dual encoders are compared pair by pair instead, as CS-CLIP's evaluation does. Images are those of the
    URLs, under their numbers.
    """

    name = "svo_probes"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for number, row in enumerate(read_csv(path)):
            kinds = [kind for kind in KINDS if {"True": True, "False": False}[row[f"{kind}_neg"]]]
            pictures = tuple(
                self.picture("svo_probes_images", f"{int(row[key])}.jpg")
                for key in ("pos_image_id", "neg_image_id")
            )
            yield Item(subset, str(number), pictures, (row["sentence"],), "+".join(kinds))

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        return first_best(scores[:, :, 0])

    def figures(self, judged: Judged) -> dict[str, Mean]:
        kinds = {kind: judged.mean(category=kind) for kind in KINDS}
        return {"macro": mean_of(kinds.values()), "all": joined(kinds.values()), **kinds}
