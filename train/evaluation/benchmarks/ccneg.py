"""CC-Neg: an image of CC3M, its caption, and the caption with a part of it denied."""

import pickle
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks.base import Benchmark, each
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Judged, Mean

EVALUATED: Final = 40_000  # the last so many of the file; those before are for training


class CcNeg(Benchmark):
    """The caption must score above its negation, from which commas are taken.

    Rule: evaluation_datasets.py, data_configs.py and clip_model.py of the CoN-CLIP repository: the last 40,000 rows,
    argmax, so that a tie is right; the strict figure is given beside.
    """

    name = "ccneg"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        import torch

        try:
            rows = torch.load(path, weights_only=True)  # runs no code of the file
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise UserError(f"{path} is damaged, or holds more than text: {error}") from error
        pairs = zip(rows["image_paths"], rows["annotations"], strict=True)
        first = max(0, len(rows["annotations"]) - EVALUATED)
        for number, (image, row) in each(pairs):
            if number < first:
                continue
            picture = self.picture("ccneg_images", PurePosixPath(image).name)
            negated = row["sop_data"]["negative-prompt"]
            if isinstance(negated, str):
                negated = negated.replace(",", "")
            yield Item(subset, str(number), (picture,), (row["json"]["caption"], negated))

    def figures(self, judged: Judged) -> dict[str, Mean]:
        return {"accuracy": judged.mean(criterion="lenient"), "strict": judged.mean()}
