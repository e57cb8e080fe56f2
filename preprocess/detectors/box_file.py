"""Boxes that were made elsewhere: a Parquet or COCO JSON file, joined by image and phrase.

Parquet has the columns `image`, `phrase`, `x0`, `y0`, `x1`, `y1`, in 0..1 of the image, or in pixels where `width` and
`height` stand beside them; `score`, in 0..1, where there is one (else 1), and `shard` where images of different shards
have the same name. COCO JSON has `images`, `annotations` (bbox in pixels; `score` and `phrase` if there are any) and
`categories`, whose names are the phrases otherwise. An image is known by its key, the name of its file, with or without
folders, or that without its ending; a path in the file may have folders before it that the store does not know. Phrases
are known by their words in lower case.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from macco.pipeline.errors import UserError
from macco.preprocess.detectors.detector import ASKED, WORDLESS, Detections, Detector, Settings
from macco.preprocess.detectors.nothing import SIDE
from macco.preprocess.detectors.prompts import normalize

CORNERS = ("x0", "y0", "x1", "y1")
SIZE = ("width", "height")
UNSCORED = "boxes of the file without a score, beside those that have one: taken as 1"


class BoxFile:
    """A `Lookup`: boxes by image and phrase."""

    max_side = SIDE

    def __init__(self, path: Path, settings: Settings) -> None:
        table = _coco(path) if path.suffix == ".json" else _parquet(path)
        self.settings = settings
        self.fingerprint = content(path)
        self.counts: Counter[str] = Counter()
        images, phrases = table["image"].to_pylist(), _texts(table["phrase"], path)
        shards = table["shard"].to_pylist() if "shard" in table.column_names else [None] * len(images)
        self._phrases = [normalize(phrase or "") for phrase in phrases]
        self._boxes, self._scores, self._unscored = _corners(table, path), *_scores(table, path)
        sides = self._boxes[:, 2:] > self._boxes[:, :2]
        inside = (self._boxes >= -1e-3) & (self._boxes <= 1 + 1e-3)
        self._good = inside.all(1) & sides.all(1) & np.isfinite(self._scores)
        self._boxes = self._boxes.clip(0, 1)
        self._rows: dict[tuple[str | None, str], list[int]] = {}
        for row, (shard, image) in enumerate(zip(shards, images, strict=True)):
            self._rows.setdefault((None if shard is None else str(shard), str(image)), []).append(row)
        self._ends: dict[tuple[str | None, str], list[str]] = {}  # paths by the names at their end
        for shard, image in self._rows:
            if "/" in image:
                self._ends.setdefault((shard, image.rpartition("/")[2]), []).append(image)
        self._heard = False  # whether any image was in the file, or it was said that none is

    def detect(self, images: Sequence[Any], phrases: Sequence[Sequence[str]]) -> list[Detections]:
        """Raises: pixels say nothing about what their image is called."""
        raise TypeError("boxes of a file are looked up by name")

    def look_up(
        self, shard: str, names: Sequence[Sequence[str]], phrases: Sequence[Sequence[str]]
    ) -> list[Detections]:
        """See `Lookup`."""
        found = [self._image(shard, own, asked) for own, asked in zip(names, phrases, strict=True)]
        if not self._heard and found and self._rows:
            print(
                f"warning: none of the first {len(found)} images is in the file of boxes: one is called "
                f"{' or '.join(map(repr, names[0]))} here, {next(iter(self._rows))[1]!r} there",
                file=sys.stderr,
            )
            self._heard = True
        return found

    def _image(self, shard: str, names: Sequence[str], phrases: Sequence[str]) -> Detections:
        rows = self._known(shard, names)
        self.counts["images in the file" if rows is not None else "images that are not in the file"] += 1
        self._heard |= rows is not None
        by_phrase: dict[str, list[int]] = {}
        seen: set[tuple[Any, ...]] = set()
        rows = None if rows is None else [row for row in rows if self._phrases[row]]
        for row in rows or ():
            if not self._good[row]:
                self.counts["boxes of the file that are none"] += 1
                continue
            same = (self._phrases[row], self._boxes[row].tobytes(), float(self._scores[row]))
            if same in seen:
                self.counts["boxes that the file has again"] += 1
                continue
            seen.add(same)
            if self._unscored[row]:
                self.counts[UNSCORED] += 1
            if self._scores[row] > self.settings.box_threshold:
                by_phrase.setdefault(self._phrases[row], []).append(row)
        asked = [normalize(phrase) for phrase in phrases]
        distinct = {text for text in asked if text}
        self.counts[ASKED] += len(distinct)
        self.counts[WORDLESS] += asked.count("")
        said = {self._phrases[row] for row in rows or ()}
        self.counts["phrases that their image has no row of in the file"] += len(distinct - said)
        self.counts["phrases of the file that no caption has"] += len(said - distinct)
        found: list[int] = []
        place: list[int] = []
        for number, text in enumerate(asked):
            best = sorted(by_phrase.get(text, ()), key=lambda row: -self._scores[row])
            best = best[: self.settings.max_boxes_per_phrase]
            found += best
            place += [number] * len(best)
        return Detections(np.array(place, np.int32), self._boxes[found], self._scores[found])

    def _known(self, shard: str, names: Sequence[str]) -> list[int] | None:
        """The rows of an image that is called any of these; of paths in the file one alone may end with its own."""
        places = (shard, None)
        known = next(
            ((place, name) for name in names for place in places if (place, name) in self._rows), None
        )
        if known is None:
            longest = max(name.count("/") for name in names)
            for place in places:
                for name in (name for name in names if name.count("/") == longest):
                    paths = self._ends.get((place, name.rpartition("/")[2]), ())
                    fit = [path for path in paths if path.endswith(f"/{name}")]
                    if len(fit) > 1:
                        self.counts["images that several paths of the file end with: not joined"] += 1
                    elif fit:
                        return self._rows[place, fit[0]]
        return None if known is None else self._rows[known]


class BoxFileBackend:
    """What `boxes:FILE` stands for."""

    def check(self, name: str) -> None:
        """Raise UserError unless FILE is there, and is one of boxes by its columns."""
        path = _path(name)
        if path.suffix != ".json":
            _columns(path, _schema(path).names)

    def fingerprint(self, name: str) -> str:
        """Hash of the content."""
        return content(_path(name))

    def load(self, name: str, device: str, settings: Settings) -> Detector:
        """Read the file. Raises UserError where it holds something else."""
        return BoxFile(_path(name), settings)


def _path(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"boxes:{name}: there is no such file; give a .parquet or a COCO .json")
    return path


def content(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as stream:
        return f"boxes:{hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()}"


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from error


def _columns(path: Path, names: Sequence[str]) -> list[str]:
    missing = [name for name in ("image", "phrase", *CORNERS) if name not in names]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: it has {', '.join(names)}")
    return [name for name in ("image", "phrase", *CORNERS, *SIZE, "score", "shard") if name in names]


def _parquet(path: Path) -> pa.Table:
    return pq.read_table(path, columns=_columns(path, _schema(path).names), partitioning=None)


def _coco(path: Path) -> pa.Table:
    try:
        held = json.loads(path.read_bytes())
        images = {one["id"]: one for one in held["images"]}
        names = {one["id"]: one["name"] for one in held.get("categories", ())}
        for one in held["annotations"]:
            if one["image_id"] not in images:
                raise ValueError(
                    f"of an annotation whose image_id is {one['image_id']!r}, which no image has"
                )
        rows = [_annotation(one, images[one["image_id"]], names) for one in held["annotations"]]
        # An image without annotations is known, too: nothing was found in it.
        rows += [{"image": one["file_name"], "phrase": ""} for one in held["images"]]
    except (ValueError, KeyError, TypeError, LookupError) as error:
        raise UserError(
            f"{path} is no COCO detection JSON: {type(error).__name__} {error}; images (id, file_name, width, height), "
            "annotations (image_id, category_id, bbox) and categories (id, name) are needed"
        ) from error
    kinds = [pa.field(name, pa.string()) for name in ("image", "phrase")]
    kinds += [pa.field(name, pa.float64()) for name in (*CORNERS, *SIZE, "score")]
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))


def _annotation(one: dict[str, Any], image: dict[str, Any], names: dict[Any, str]) -> dict[str, Any]:
    x, y, width, height = map(float, one["bbox"])
    phrase = one["phrase"] if "phrase" in one else names[one["category_id"]]
    if not isinstance(phrase, str):
        raise ValueError(f"of a phrase that is no text: {phrase!r}")
    score = None if one.get("score") is None else float(one["score"])
    return {
        "image": image["file_name"], "phrase": phrase, "x0": x, "y0": y, "x1": x + width, "y1": y + height,
        "width": float(image["width"]), "height": float(image["height"]), "score": score,
    }  # fmt: skip


def _corners(table: pa.Table, path: Path) -> NDArray[np.float32]:
    boxes = np.stack([_numbers(table, name, np.nan) for name in CORNERS], 1)
    if all(name in table.column_names for name in SIZE):
        sizes = np.stack([_numbers(table, name, np.nan) for name in SIZE * 2], 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            boxes = boxes / sizes
    elif len(boxes) and np.nanmedian(boxes.max(1)) > 1:
        raise UserError(f"{path} has boxes beyond 1: beside pixels, give the columns width and height")
    return boxes


def _texts(column: pa.ChunkedArray, path: Path) -> list[str | None]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise UserError(f"{path} has phrases of the type {kind}: text is needed, in the captions' words")
    found: list[str | None] = column.to_pylist()
    return found


def _scores(table: pa.Table, path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores, and which rows have none beside others that do."""
    scores, none = _numbers(table, "score", 1.0), np.zeros(table.num_rows, bool)
    wrong = scores[np.isfinite(scores) & ((scores < 0) | (scores > 1))]
    if len(wrong):
        raise UserError(f"{path} has scores beyond 0..1, such as {wrong[0]:g}: divide percentages by 100")
    if "score" in table.column_names and table["score"].null_count < table.num_rows:
        none = table["score"].is_null().to_numpy()
    return scores, none


def _numbers(table: pa.Table, name: str, default: float) -> NDArray[np.float32]:
    if name not in table.column_names:
        return np.full(table.num_rows, default, np.float32)
    try:
        values = table[name].cast(pa.float64()).fill_null(default)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"the column {name} of the boxes holds no numbers: {error}") from error
    found: NDArray[np.float32] = values.to_numpy().astype(np.float32)
    return found
