"""The demo corpus on disk: webdataset tars, and beside them what a perfect extraction would find."""

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from macco.pipeline.errors import UserError
from macco.pipeline.folder import put_file
from macco.pipeline.parquet import parquet_bytes
from macco.pipeline.pictures import Decoded
from macco.pipeline.schema import BOXES, CONCEPTS, OBJECT
from macco.preprocess.demo.captions import captions
from macco.preprocess.demo.icons import FRAME, NOUNS
from macco.preprocess.demo.scene import SIDE, Box, Scene, random_scene
from macco.preprocess.extraction.tables import Boxes, Row, ShardTables
from macco.preprocess.sources import SourceImage

SPLITS = ("train", "val", "test")
NOTICE = """\
Scenes drawn and captions written by macco-prep demo. The pictograms are from Material Design Icons
(Pictogrammers, Google; Apache License 2.0). No rights are claimed in the drawings.
"""


def make(split: str, seed: int, index: int) -> tuple[Scene, random.Random]:
    """Scene `index` of a split, and the random numbers its captions are written with."""
    rng = random.Random(f"{split}/{seed}/{index}")
    return random_scene(rng, split), rng


def write_corpus(
    out_dir: Path, *, images: int, seed: int, shard_size: int = 1000, split: str = "train"
) -> None:
    """Write `images` scenes as tars of `shard_size`, with their truth in out_dir/truth in the store's schemas.

    Image i depends on the split, the seed and i alone; equal arguments give equal bytes. Raises UserError
    for an unknown split or a folder that holds something else.
    """
    if split not in SPLITS:
        raise UserError(f"--split is {split!r}: choose one of {', '.join(SPLITS)}")
    if out_dir.is_file() or (
        out_dir.is_dir() and {p.suffix for p in out_dir.iterdir()} - {"", ".tar", ".txt"}
    ):
        raise UserError(f"{out_dir} holds something else: choose a new folder")
    put_file(out_dir / "NOTICE.txt", NOTICE.encode())
    for shard, start in enumerate(range(0, images, shard_size)):
        _write_shard(
            out_dir,
            f"{shard:05}",
            f"demo-{split}",
            range(start, min(start + shard_size, images)),
            split,
            seed,
        )


def _write_shard(out_dir: Path, name: str, dataset: str, indices: range, split: str, seed: int) -> None:
    truth = ShardTables(dataset, name)
    data = io.BytesIO()
    row = 0
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index in indices:
            scene, rng = make(split, seed, index)
            key = f"{index:09}"
            image = scene.draw()
            jpeg = io.BytesIO()
            image.save(jpeg, "JPEG", quality=92)
            written = captions(scene, rng)
            about = {
                "captions": [text for text, _ in written],
                **describe(scene),
                "split": split,
                "seed": seed,
            }
            _add(tar, f"{key}.jpg", jpeg.getvalue())
            _add(tar, f"{key}.json", json.dumps(about).encode())
            rows = [
                Row(number, row + number, text, graph=concepts)
                for number, (text, concepts) in enumerate(written)
            ]
            row += len(rows)
            source = SourceImage(key, tuple(about["captions"]), None, f"{name}.tar", f"{key}.jpg")
            phrases = {c.phrase for _, graph in written for c in graph if c.kind == OBJECT and c.phrase}
            found = {phrase: _boxes(scene, phrase) for phrase in sorted(phrases)}
            truth.add(source, Decoded(SIDE, SIDE, image), rows, found)
    tables = truth.finish()
    put_file(out_dir / "truth" / "concepts" / f"{name}.parquet", parquet_bytes(CONCEPTS, tables["concepts"]))
    put_file(out_dir / "truth" / "boxes" / f"{name}.parquet", parquet_bytes(BOXES, tables["boxes"]))
    put_file(out_dir / f"{name}.tar", data.getvalue())


def describe(scene: Scene) -> dict[str, Any]:
    """A scene as JSON: enough to draw it again."""
    things = [
        {"noun": thing.noun, "colour": thing.colour, "size": thing.size, "boxes": thing.boxes}
        for thing in scene.things
    ]
    return {"objects": things, "relations": scene.relations, "held_out": scene.held_out, "noise": scene.noise}


def matching(scene: Scene, phrase: str) -> list[Box]:
    """The boxes, in pixels, of everything in a scene that a phrase like "large red dogs" is true of."""
    words = phrase.split()
    boxes: list[Box] = []
    for thing in scene.things:
        names = [(FRAME, FRAME + "s")] if thing.noun == FRAME else NOUNS[thing.noun].names
        for name in (form.split() for pair in names for form in pair):
            if words[-len(name) :] == name and set(words[: -len(name)]) <= {thing.colour, thing.size}:
                boxes += thing.boxes
                break
    return boxes


def _boxes(scene: Scene, phrase: str) -> Boxes:
    boxes = np.array(matching(scene, phrase), np.float32).reshape(-1, 4) / np.float32(SIDE)
    return boxes, np.ones(len(boxes), np.float32)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
