"""BiVLC: SugarCrepe's pairs with a generated image for the wrong caption, asked in both directions."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from macco.train.evaluation.benchmarks.base import Benchmark, each
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean
from macco.train.evaluation.rules import two_by_two


class BiVlc(Benchmark):
    """The published Parquet (images inside), or a CSV with filename and negative_image (a file name)."""

    name = "bivlc"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        rows = _parquet_rows(path) if path.suffix == ".parquet" else self._csv_rows(path)
        for number, (pictures, row) in each(rows):
            category = f"{row['type']}_{row['subtype']}".lower()
            captions = row["caption"], row["negative_caption"]
            yield Item(subset, str(number), pictures, captions, category)

    def _csv_rows(self, path: Path) -> Iterator[tuple[tuple[Picture, Picture], dict[str, str]]]:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            for row in csv.DictReader(stream):
                negative = self.picture("bivlc_negatives", row["negative_image"])
                yield (self.picture("coco_val2017", row["filename"]), negative), row

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        judged = two_by_two(scores)
        return {"i2t": judged["text"], "t2i": judged["image"], "group": judged["group"], "tie": judged["tie"]}

    def figures(self, judged: Judged) -> dict[str, Mean]:
        criteria = ("i2t", "t2i", "group")
        by_category = {
            f"{category} {name}": judged.mean(category=category, criterion=name)
            for category in judged.categories()
            for name in criteria
        }
        return {name: judged.mean(criterion=name) for name in criteria} | by_category


def _parquet_rows(path: Path) -> Iterator[tuple[tuple[Picture, Picture], dict[str, str]]]:
    columns = ["caption", "negative_caption", "type", "subtype"]
    for number, row in enumerate(pq.read_table(path, columns=columns).to_pylist()):
        own, negative = Picture(str(path), f"image/{number}"), Picture(str(path), f"negative_image/{number}")
        yield (own, negative), row
