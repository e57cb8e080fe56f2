"""COCO's detection JSON, and FiftyOne's image-detection folder."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.folder import new_folder, put_file
from macco.pipeline.pictures import read_image_bytes
from macco.pipeline.query import connect, dicts
from macco.pipeline.store import Store

# One row per image and box; equal boxes of several captions' phrases are one.
_BOXES = """
    SELECT s.dataset, s.shard, s.key, any_value(s.width) AS width, any_value(s.height) AS height,
           any_value(s.source) AS source, any_value(s.member) AS member, any_value(s.offset) AS "offset",
           any_value(s.size) AS size, c.lemma, c.phrase, b.x0, b.y0, b.x1, b.y1, max(b.score) AS score
    FROM samples s
    LEFT JOIN concepts c ON c.sample_id = s.sample_id AND c.kind = 'object' AND c.part = 0
    LEFT JOIN boxes b ON b.concept_id = c.concept_id AND b.score >= ?
    WHERE s.status = 'ok'
    GROUP BY s.dataset, s.shard, s.key, c.lemma, c.phrase, b.x0, b.y0, b.x1, b.y1
    ORDER BY s.dataset, s.shard, s.key, score DESC, c.phrase, b.x0, b.y0, b.x1, b.y1
"""


def _images(store: Store, threshold: float) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield (image, its boxes); memory holds one image."""
    cursor = connect(store).execute(_BOXES, [threshold])
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


def file_name(row: dict[str, Any]) -> str:
    """A file name for an image, unique in the store."""
    suffix = os.path.splitext(row["member"] or row["source"])[1] or ".jpg"
    return f"{row['dataset']}_{row['shard']}_{row['key']}".replace("/", "_") + suffix


def export_coco(store: Store, out: Path, threshold: float) -> int:
    """Write one COCO detection JSON: categories are lemmas, boxes are x, y, width, height in pixels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for number, (row, boxes) in enumerate(_images(store, threshold), 1):
        size = {"width": row["width"], "height": row["height"]}
        source = {"source": row["source"], "member": row["member"], "key": row["key"], "shard": row["shard"]}
        images.append({"id": number, "file_name": file_name(row)} | size | source)
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


def export_fiftyone(store: Store, out: Path, threshold: float) -> int:
    """Write a folder that FiftyOne opens as FiftyOneImageDetectionDataset: data/ with images, labels.json."""
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        labels: dict[str, list[dict[str, Any]]] = {}
        classes: dict[str, int] = {}
        for row, boxes in _images(store, threshold):
            name = file_name(row)
            try:
                data = read_image_bytes(row["source"], row["member"], row["offset"], row["size"])
            except (OSError, KeyError) as error:
                raise UserError(f"the image of {row['key']} cannot be read again: {error}") from error
            (folder / "data" / name).write_bytes(data)
            labels[os.path.splitext(name)[0]] = [
                {
                    "label": classes.setdefault(box["lemma"], len(classes)),
                    "bounding_box": [box["x0"], box["y0"], box["x1"] - box["x0"], box["y1"] - box["y0"]],
                    "confidence": round(box["score"], 4),
                    "attributes": {"phrase": box["phrase"]},
                }
                for box in boxes
            ]
        put_file(folder / "labels.json", json.dumps({"classes": list(classes), "labels": labels}).encode())
    return len(labels)
