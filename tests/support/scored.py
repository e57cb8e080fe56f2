"""A scorer that reads its scores from a table: what a benchmark makes of known scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from macco.train.evaluation.item import Picture
from macco.train.evaluation.judged import Floats
from macco.train.evaluation.results import ITEMS
from macco.train.evaluation.scorer import OK


class TableScorer:
    """Scores by (image name, caption), text similarities by caption pair; a joint encoder where `texts` is None."""

    def __init__(
        self,
        scores: Mapping[tuple[str, str], float],
        texts: Mapping[tuple[str, str], float] | None = None,
        missing: Sequence[str] = (),
    ) -> None:
        self.scores = scores
        self.texts = texts
        self.missing = missing

    def pairs(self, pictures: Sequence[Picture], captions: Sequence[str]) -> Floats:
        values = [
            np.nan if Path(p.source).name in self.missing else self.scores[key(p), c]
            for p, c in zip(pictures, captions, strict=True)
        ]
        return np.array(values, dtype=np.float32)

    def text_pairs(self, left: Sequence[str], right: Sequence[str]) -> Floats | None:
        if self.texts is None:
            return None
        return np.array([self.texts[pair] for pair in zip(left, right, strict=True)], dtype=np.float32)

    def status(self, picture: Picture) -> str:
        return "missing_image" if Path(picture.source).name in self.missing else OK


def key(picture: Picture) -> str:
    """File name or Parquet cell."""
    return Path(picture.source).name if picture.member is None else picture.member


def evaluation(folder: Path, right: list[bool]) -> Path:
    """What `macco-train eval` writes of some items, their captions hostile."""
    folder.mkdir()
    rows = [
        {
            "benchmark": "b",
            "subset": "s",
            "item": f"{at}",
            "category": "c",
            "images": ["x.jpg"],
            "status": "ok",
        }
        | {
            "captions": [f"<b>{at}", "no"],
            "scores": [0.5, 0.25],
            "text_scores": None,
            "answers": [("text", one)],
        }
        for at, one in enumerate(right)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=ITEMS), folder / "items.parquet")
    return folder
