"""The demo benchmark: drawn scenes with one thing changed (`macco-prep demo DIR --benchmark`)."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.train.evaluation.benchmarks.base import Benchmark, each, read_lines
from macco.train.evaluation.item import Item, Picture
from macco.train.evaluation.judged import Bools, Floats, Judged, Mean, mean_of
from macco.train.evaluation.rules import first_best, two_by_two

GROUPS: Final = ("seen", "held_out")  # of pairs that training shows, and that it never shows
AXES: Final = {
    "relation": ("relation_swap", "relation_replace"),
    "attribute": ("attribute_swap", "attribute_replace"),
    "order": ("word_order",),
    "object": ("object_replace", "object_add", "object_remove"),
}
COMPOSITION: Final = ("relation", "attribute", "order")
PAIRS: Final = ("relation_swap", "relation_replace", "attribute_swap", "attribute_replace", "object_replace")
SAME_WORDS: Final = ("attribute_swap", "relation_swap")  # Winoground's items


class Demo(Benchmark):
    """Subsets kind/group, by a strict rule. "right": the base image prefers its caption, or, of object_remove,
    the caption its image. Kinds with two images and two captions also have the other direction and the group.
    """

    name = "demo"

    def read(self, subset: str, path: Path) -> Iterator[Item]:
        for _, row in each(self._rows.get(subset, [])):
            images = [row[key] for key in ("image_0", "image_1") if key in row]
            captions = [row[key] for key in ("caption_0", "caption_1") if key in row]
            captions += row.get("negatives", [])
            if len(images) * len(captions) < 2:
                raise ValueError(f"{subset} {row['id']} asks nothing")
            pictures = tuple(Picture(str(path.parent / image)) for image in images)
            yield Item(subset, row["id"], pictures, tuple(captions), row["group"])

    @cached_property
    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """Lines of the one file by subset."""
        path = self.places.file(self.manifest, next(iter(self.manifest.files)))
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in read_lines(path):
            rows.setdefault(f"{row['kind']}/{row['group']}", []).append(row)
        if unknown := sorted(set(rows) - set(self.manifest.files)):
            raise UserError(f"{path}: no subset is called {unknown[0]}: draw it again ({self.manifest.get})")
        return rows

    def judge(self, scores: Floats, between: Floats | None) -> dict[str, Bools]:
        if scores.shape[1] == 1:
            return first_best(scores[:, 0])
        image_wins = first_best(scores[:, :, 0])
        if scores.shape[2] == 1:
            return image_wins
        both = two_by_two(scores)
        return {"right": scores[:, 0, 0] > scores[:, 0, 1], "t2i": image_wins["right"], **both}

    def figures(self, judged: Judged) -> dict[str, Mean]:
        present = judged.categories()
        figures: dict[str, Mean] = {}
        for group in GROUPS:
            if group in present:
                figures |= {f"{name} {group}": mean for name, mean in self._of_group(judged, group).items()}
        return figures

    def _of_group(self, judged: Judged, group: str) -> dict[str, Mean]:
        def mean(kinds: tuple[str, ...], criterion: str = "right") -> Mean:
            parts = [judged.mean(f"{kind}/{group}", criterion=criterion) for kind in kinds]
            return parts[0] if len(parts) == 1 else mean_of(parts)

        axes = {axis: mean(kinds) for axis, kinds in AXES.items()}
        winoground = ("text", "image", "group")
        return {
            "composition": mean_of(axes[axis] for axis in COMPOSITION),
            **axes,
            **{f"winoground {name}": mean(SAME_WORDS, name) for name in winoground},
            **{kind: mean((kind,)) for kinds in AXES.values() for kind in kinds},
            **{f"{kind} {name}": mean((kind,), name) for kind in PAIRS for name in ("t2i", "group")},
        }
