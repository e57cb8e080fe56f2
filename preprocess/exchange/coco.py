"""COCO's detection JSON, and FiftyOne's image-detection folder."""

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from macco.pipeline.errors import UserError
from macco.pipeline.folder import new_folder, put_file
from macco.pipeline.pictures import read_image_bytes
from macco.pipeline.query import connect, dicts
from macco.pipeline.schema import TABLES
from macco.pipeline.store import Store
from macco.preprocess.exchange.names import IMAGES, Names, made_name

# One row per image and box; equal boxes of several captions' phrases are one.
_BOXES = f"""
    SELECT s.dataset, s.shard, s.key, any_value(s.width) AS width, any_value(s.height) AS height,
           any_value(s.source) AS source, any_value(s.member) AS member, any_value(s.offset) AS "offset",
           any_value(s.size) AS size, any_value(s.packed) AS packed, any_value(s.format) AS format,
           c.lemma, c.phrase, b.x0, b.y0, b.x1, b.y1, max(b.score) AS score
    FROM ({IMAGES}) s
    LEFT JOIN concepts c ON c.sample_id = s.sample_id AND c.kind = 'object' AND c.part = 0
    LEFT JOIN boxes b ON b.concept_id = c.concept_id AND b.score >= ?
    WHERE s.status = 'ok'
    GROUP BY s.dataset, s.shard, s.key, c.lemma, c.phrase, b.x0, b.y0, b.x1, b.y1
    ORDER BY s.dataset, s.shard, s.key, score DESC, c.phrase, b.x0, b.y0, b.x1, b.y1
"""
_BAD_NAME: Final = (
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
)  # EEXIST: where case is ignored

Log = Callable[[str], None]


def _images(store: Store, threshold: float) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield (image, its boxes); memory holds one image."""
    cursor = connect(store, views=(*TABLES, "shards")).execute(_BOXES, [threshold])
    image: dict[str, Any] | None = None
    boxes: list[dict[str, Any]] = []
    while rows := dicts(cursor, 10_000):
        for row in rows:
            if image is None or any(image[name] != row[name] for name in ("dataset", "shard", "key")):
                if image is not None:
                    yield image, boxes
                image, boxes = row, []
            if row["x0"] is not None:
                boxes.append(row)
    if image is not None:
        yield image, boxes


class _Ids:
    """Numbers of images: those of the COCO JSON that they come from, as far as they are numbers; else new ones."""

    def __init__(self, store: Store) -> None:
        asked = f"SELECT any_value(key) FROM ({IMAGES}) WHERE format = 'coco' GROUP BY dataset, shard, key"
        keys = connect(store, views=("samples", "shards")).execute(asked).fetchall()
        times = Counter(key for (key,) in keys if re.fullmatch(r"0|[1-9][0-9]*", key, re.ASCII))
        self._own = {key for key, number in times.items() if number == 1}
        self._new = count(max(map(int, times), default=0) + 1)

    def __call__(self, row: dict[str, Any]) -> int:
        own = row["format"] == "coco" and row["key"] in self._own
        return int(row["key"]) if own else next(self._new)


def export_coco(store: Store, out: Path, threshold: float, log: Log = print) -> int:
    """Write one COCO detection JSON: categories are lemmas, boxes are x, y, width, height in pixels.

    Images keep the file names, and those of a COCO JSON the ids, that they had where the store was made.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    names, ids = Names(connect(store, views=("samples", "shards"))), _Ids(store)
    for row, boxes in _images(store, threshold):
        number = ids(row)
        size = {"width": row["width"], "height": row["height"]}
        source = {"source": row["source"], "member": row["member"], "key": row["key"], "shard": row["shard"]}
        images.append({"id": number, "file_name": names(row)} | size | source)
        for box in boxes:
            x, y = box["x0"] * row["width"], box["y0"] * row["height"]
            w, h = (box["x1"] - box["x0"]) * row["width"], (box["y1"] - box["y0"]) * row["height"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories.setdefault(box["lemma"], len(categories) + 1),
                    "bbox": [round(value, 2) for value in (x, y, w, h)],
                    "area": round(w * h, 2),
                    "iscrowd": 0,
                    "score": round(box["score"], 4),
                    "phrase": box["phrase"],
                }
            )
    named = [{"id": number, "name": name} for name, number in categories.items()]
    put_file(out, json.dumps({"images": images, "annotations": annotations, "categories": named}).encode())
    return len(images)


def export_fiftyone(store: Store, out: Path, threshold: float, log: Log = print) -> int:
    """Write a folder that FiftyOne opens as FiftyOneImageDetectionDataset: data/ with images, labels.json.

    Images that can no longer be read, or whose name the file system refuses, are left out and told to `log`.
    Raises UserError where that is all of them.
    """
    lost: list[str] = []
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        labels: dict[str, list[dict[str, Any]]] = {}
        classes: dict[str, int] = {}
        for row, boxes in _images(store, threshold):
            name = made_name(row)
            try:
                data = read_image_bytes(row["source"], row["member"], row["offset"], row["size"])
            except (OSError, KeyError) as error:
                lost.append(f"{row['key']} ({error})")
                continue
            try:
                with open(folder / "data" / name, "xb") as file:
                    file.write(data)
            except OSError as error:
                if error.errno not in _BAD_NAME:
                    raise
                lost.append(f"{row['key']} ({error})")
                continue
            labels[os.path.splitext(name)[0]] = [
                {
                    "label": classes.setdefault(box["lemma"], len(classes)),
                    "bounding_box": [box["x0"], box["y0"], box["x1"] - box["x0"], box["y1"] - box["y0"]],
                    "confidence": round(box["score"], 4),
                    "attributes": {"phrase": box["phrase"]},
                }
                for box in boxes
            ]
        if lost and not labels:
            raise UserError(
                f"none of the {len(lost)} images can be read again, such as {lost[0]}: are they where they were?"
            )
        put_file(folder / "labels.json", json.dumps({"classes": list(classes), "labels": labels}).encode())
    if lost:
        log(f"{len(lost)} images are left out: they cannot be read again or written, such as {lost[0]}")
    return len(labels)
