"""Small stores with drawn images in tars, for the tests and the benchmark of the loader."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from macco.pipeline.schema import BOXES, CONCEPTS, OK, SAMPLES, sample_id
from macco.pipeline.store import Store

CAPTION = "A red dog is sitting on a small sofa."
# kind, start, end, head_start, head_end, pos, subject, object, owner
SPANS = [
    ("object", 0, 9, 6, 9, "NOUN", None, None, None),
    ("object", 24, 36, 32, 36, "NOUN", None, None, None),
    ("attribute", 2, 5, 2, 5, "ADJ", None, None, 0),
    ("attribute", 26, 31, 26, 31, "ADJ", None, None, 1),
    ("relation", 13, 23, 13, 20, "VERB", 0, 1, None),
]
# object, x0, y0, x1, y1, score
FOUND = [(0, 0.1, 0.1, 0.3, 0.4, 0.9), (1, 0.5, 0.5, 0.9, 0.9, 0.6), (1, 0.0, 0.9, 0.1, 1.0, 0.2)]


def jpeg(number: int, width: int = 80, height: int = 60) -> bytes:
    """A picture whose mean brightness in red is `number` % 256."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[..., 0] = number % 256
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def tar(path: Path, images: list[bytes]) -> list[tuple[int, int]]:
    """Write images 000.jpg, 001.jpg, ... with CAPTION; return (offset, size) of each."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        for number, data in enumerate(images):
            for ending, content in (("jpg", data), ("txt", CAPTION.encode())):
                info = tarfile.TarInfo(f"{number:09}.{ending}")
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as file:
        return [(info.offset_data, info.size) for info in file if info.name.endswith(".jpg")]


def rows(
    shard: str, source: Path, places: list[tuple[int, int]], caption: str = CAPTION
) -> dict[str, pa.Table]:
    """The three tables of a shard with one caption per image."""
    samples: list[dict[str, Any]] = []
    concepts: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for row, (offset, size) in enumerate(places):
        key = f"{row:09}"
        name = sample_id("d", shard, key, 0)
        ids = {"sample_id": name, "dataset": "d", "shard": shard, "key": key, "caption_id": 0}
        place = {"source": str(source), "member": f"{key}.jpg", "offset": offset, "size": size}
        picture = {"width": 80, "height": 60, "dhash": 0, "status": OK, "error": None}
        samples.append(ids | {"row": row, "caption": caption} | place | picture)
        for number, (kind, start, end, head, tail, pos, subject, object_, owner) in enumerate(SPANS):
            text = {"text": caption[start:end], "lemma": caption[head:tail], "head": caption[head:tail]}
            span = {"start": start, "end": end, "head_start": head, "head_end": tail, "part": 0}
            links = {
                field: None if value is None else f"{name}/{value}"
                for field, value in (("subject_id", subject), ("object_id", object_), ("owner_id", owner))
            }
            phrase = {"phrase": None if kind == "relation" else "thing", "pos": pos, "kind": kind}
            concepts.append(ids | {"concept_id": f"{name}/{number}"} | text | span | links | phrase)
        for number, x0, y0, x1, y1, score in FOUND:
            corners = {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": score}
            boxes.append(ids | {"concept_id": f"{name}/{number}"} | corners)
    made = {"samples": (samples, SAMPLES), "concepts": (concepts, CONCEPTS), "boxes": (boxes, BOXES)}
    return {name: pa.Table.from_pylist(values, schema=schema) for name, (values, schema) in made.items()}


def record(shard: str, source: Path) -> dict[str, Any]:
    """A commit record that says how to read the shard again."""
    given = {"dataset": "d", "name": shard, "url": str(source), "format": "webdataset"}
    return {"shard": shard, "dataset": "d", "input": given}


def drawn_store(folder: Path, shards: int = 3, images: int = 20) -> str:
    """A store at folder/store whose tars lie beside it; image i of shard s has brightness 20 s + i."""
    store = Store.create(str(folder / "store"), {"made": "for tests"})
    for number in range(shards):
        name, source = f"{number:05}", folder / f"{number:05}.tar"
        places = tar(source, [jpeg(20 * number + image) for image in range(images)])
        store.commit(name, rows(name, source, places), record(name, source))
    return str(folder / "store")
