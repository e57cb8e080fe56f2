"""Winoground: two images and two captions of the same words."""

from collections.abc import Iterator
from pathlib import Path

from macco.train.evaluation.benchmarks.base import Benchmark, read_json, read_lines
from macco.train.evaluation.item import Item
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean
from macco.train.evaluation.rules import two_by_two


class Winoground(Benchmark):
    """All 400 items; where clean.json (a list of ids) is there, that subset too, under its own names."""

    name = "winoground"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        if subset != "all":
            return
        clean = self.manifest.files["clean"].path
        ids = path.parent / clean
        chosen = {str(name) for name in read_json(ids)} if ids.is_file() else set()
        for row in read_lines(path):
            name = str(row["id"])
            pictures = tuple(
                self.picture("winoground_images", f"{row[key]}.png") for key in ("image_0", "image_1")
            )
            captions = row["caption_0"], row["caption_1"]
            yield Item(subset, name, pictures, captions, "clean" if name in chosen else "")

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        return two_by_two(scores)

    def figures(self, judged: Judged) -> dict[str, Mean]:
        criteria = ("text", "image", "group")
        everything = {name: judged.mean(criterion=name) for name in criteria}
        if "clean" not in judged.categories():
            return everything
        return everything | {
            f"clean {name}": judged.mean(category="clean", criterion=name) for name in criteria
        }
