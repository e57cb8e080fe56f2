"""Boxes of another detector, or threshold, for a store's concepts: nothing is parsed, no caption is read again."""

import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from macco.pipeline.errors import UserError
from macco.pipeline.pictures import ANY_PIXELS, Decoded, ImageError, decode, read_image_bytes
from macco.pipeline.schema import BOXES, OBJECT, OK
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.detectors import Detections, Detector, Lookup
from macco.preprocess.detectors.detector import held
from macco.preprocess.extraction.tables import image_names

CHUNK: Final = 128  # images grounded together

Row = dict[str, Any]


_FILE: Final = re.compile(r"\.(json|parquet|pth)$", re.IGNORECASE)  # endings of files, of ours among them


def set_name(detector: str, given: str | None, own: str, sets: Collection[str]) -> str:
    """What a further set of boxes is called: as given, or after the detector's last name, of a file its stem.

    own: what the store's own boxes are called; `sets`: the names of others that there are. Raises UserError for a name
    that is none, or another's but for capitals: on some file systems their files would be one's.
    """
    name = given or _last_name(detector)
    if name in sets:
        return name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", name) or _FILE.search(name):
        raise UserError(
            f"--as is {name!r}: letters, digits, . _ and - make a name, 80 at most, and it does not end as a file's"
        )
    if name.casefold() == own.casefold():
        raise UserError(f"{name!r} is what the store's own boxes are called: give others a name with --as")
    if alike := [one for one in sets if one.casefold() == name.casefold()]:
        raise UserError(
            f"{name!r} differs from {alike[0]!r} by capitals alone: choose another name with --as"
        )
    return name


def _last_name(detector: str) -> str:
    weights = detector.partition("@")[0].rstrip("/")  # what follows says how these are read
    name = _FILE.sub("", weights.rpartition("/")[2].rpartition(":")[2])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80]


def begin(store: Store, name: str, config: ExtractConfig) -> list[str]:
    """Begin a set of boxes, or go on with it; returns the shards that it lacks. Raises UserError where it may not."""
    if config.detector == "none":
        raise UserError("--reground asks for boxes, and --detector none makes none")
    settings = config.grounding_settings()
    store.begin_grounding(name, settings)
    return sorted(store.committed() - store.grounded(name))


@dataclass
class _Seen:
    """One image with its objects."""

    sample: Row
    objects: list[Row]
    image: Decoded | None = None

    def phrases(self) -> list[str]:
        return list(dict.fromkeys(row["phrase"] for row in self.objects))


def reground(detector: Detector, store: Store, shard: str, name: str) -> dict[str, int]:
    """Find and write the boxes of one shard's objects; returns its samples by what became of them."""
    start = time.monotonic()
    detector.counts.clear()
    counts: Counter[str] = Counter()
    rows: list[Row] = []
    images = _images(store, shard)
    total = 0
    while chunk := list(islice(images, CHUNK)):
        total += len(chunk)
        for seen in chunk:
            _read(seen, detector.max_side, counts)
        asked = [seen for seen in chunk if seen.image is not None]
        for seen, found in zip(asked, _detect(detector, shard, asked, counts), strict=True):
            if found is not None:
                rows += _rows(seen, held(found, len(seen.phrases()), counts))
            seen.image = None  # the shard's next images need the room
    counts.update(detector.counts)
    seconds = round(time.monotonic() - start, 3)
    record = {
        "shard": shard,
        "counts": {what: n for what, n in sorted(counts.items()) if n},
        "seconds": seconds,
    }
    store.put_boxes(name, shard, pa.Table.from_pylist(rows, schema=BOXES), record)
    return {OK: total}


def _images(store: Store, shard: str) -> Iterator[_Seen]:
    """Each image that has an object to be looked for, in the shard's order."""
    samples, concepts = store.table("samples", shard), store.table("concepts", shard)
    samples = samples.filter(pc.equal(samples["status"], OK)).sort_by("row")
    wanted = pc.and_(pc.equal(concepts["kind"], OBJECT), pc.equal(concepts["part"], 0))
    wanted = pc.and_(wanted, pc.invert(pc.fill_null(concepts["denied"], False)))
    wanted = pc.and_(wanted, pc.is_valid(concepts["phrase"]))
    ids = [field.name for field in BOXES if field.name in concepts.column_names]
    objects: dict[str, list[Row]] = {}
    for row in concepts.filter(wanted).select([*ids, "phrase"]).to_pylist():
        if row["phrase"]:
            objects.setdefault(row["sample_id"], []).append(row)
    images: dict[str, _Seen] = {}
    place = ["sample_id", "key", "source", "member", "offset", "size"]
    for sample in samples.select(place).to_pylist():
        seen = images.setdefault(sample["key"], _Seen(sample, []))
        seen.objects += objects.get(sample["sample_id"], [])
    return (seen for seen in images.values() if seen.objects)


def _read(seen: _Seen, max_side: int, counts: Counter[str]) -> None:
    place = [seen.sample[name] for name in ("source", "member", "offset", "size")]
    try:
        seen.image = decode(read_image_bytes(*place), max_pixels=ANY_PIXELS, max_side=max_side)
    except (OSError, KeyError, ImageError):
        counts["images that cannot be read any more"] += 1


def _detect(
    detector: Detector, shard: str, asked: Sequence[_Seen], counts: Counter[str]
) -> list[Detections | None]:
    """Detect in all images at once; where that fails, one by one, so that only the bad ones fail."""
    phrases = [seen.phrases() for seen in asked]
    if isinstance(detector, Lookup):
        names = [image_names(*(seen.sample[n] for n in ("key", "member", "source"))) for seen in asked]
        return list(detector.look_up(shard, names, phrases))
    images = [seen.image.image for seen in asked if seen.image is not None]
    before = Counter(detector.counts)
    try:
        return list(detector.detect(images, phrases))
    except Exception:
        detector.counts = before
        found: list[Detections | None] = []
        for image, own in zip(images, phrases, strict=True):
            try:
                found += detector.detect([image], [own])
            except Exception:
                found.append(None)
        if found and all(one is None for one in found):
            raise  # not the images' fault
        counts["images that the detector failed on"] += found.count(None)
        return found


def _rows(seen: _Seen, found: Detections) -> Iterator[Row]:
    place = {phrase: number for number, phrase in enumerate(seen.phrases())}
    for row in seen.objects:
        ids = {name: value for name, value in row.items() if name != "phrase"}
        mine = found.phrase == place[row["phrase"]]
        for box, score in zip(found.boxes[mine].tolist(), found.scores[mine].tolist(), strict=True):
            yield ids | dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)) | {"score": score}
