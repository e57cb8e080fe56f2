"""NegBench, multiple choice: four captions of an image, some of which say what is not there."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from macco.train.evaluation.benchmarks.base import Benchmark, read_csv
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean

OPTIONS: Final = 4
IMAGES: Final = {"coco": "coco_val2017", "voc2007": "voc2007", "synthetic": "negbench_synthetic"}


class NegBench(Benchmark):
    """Accuracy over all questions of a file, and by the template of the right answer (positive, negative, hybrid).

    Rule: evaluation/mcq.py of the repository: cosine, argmax over the four options (the first of equal ones wins
    there, a tie is wrong here). Its retrieval tasks, videos and X-rays are not read. The files' image paths are of
    their makers' disk: the file name alone is looked for.
    """

    name = "negbench"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for number, row in enumerate(read_csv(path)):
            options = [row[f"caption_{option}"] for option in range(OPTIONS)]
            right = options.pop(int(float(row["correct_answer"])))
            picture = self.picture(IMAGES[subset], PurePosixPath(row["image_path"]).name)
            template = row["correct_answer_template"]
            yield Item(subset, str(number), (picture,), (right, *options), template)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        by_template = {
            f"{subset} {template}": judged.mean(subset, template)
            for subset in self.manifest.files
            for template in ("positive", "negative", "hybrid")
        }
        return self.subsets(judged) | by_template
