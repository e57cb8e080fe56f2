"""One shard in, three Arrow tables out: read, decode, parse, ground. The unit of work, retry and resume."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from io import BytesIO
from itertools import count, islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL.Image import Image

from macco.pipeline.cores import cores
from macco.pipeline.memory import keep_freed
from macco.pipeline.pictures import Decoded, ImageError, Measured, decode, measure
from macco.pipeline.schema import OBJECT, OK, TABLES, Status, sample_id
from macco.pipeline.store import Store
from macco.pipeline.urls import stamps
from macco.preprocess.config import ExtractConfig
from macco.preprocess.detectors import Detections, Lookup
from macco.preprocess.detectors.detector import held as held_boxes
from macco.preprocess.detectors.nothing import SIDE
from macco.preprocess.extraction.reground import reground
from macco.preprocess.extraction.tables import Found, Row, ShardTables, image_names
from macco.preprocess.graph.parser import Parsed, held
from macco.preprocess.graph.parsers import load_parser
from macco.preprocess.graph.refusal import CaptionError, caption_status
from macco.preprocess.sources import Shard, SourceImage
from macco.preprocess.sources.content import Content

CHUNK = 128  # images decoded, parsed and grounded together; the next chunk is read and parsed meanwhile
DECODERS: Final = 4  # threads that decode: a detector of 300 images/s is ahead of one

Parse = Callable[
    [Sequence[str], Sequence[str]], "Future[Parsed]"
]  # starts parsing captions of samples by name


@dataclass(frozen=True)
class Job:
    """One shard to do, or, of a committed shard, the rows to do again."""

    shard: Shard
    redo: frozenset[int] | None = None
    stage: bool = False  # write it beside what the store holds: it is to take the place of something there
    boxes: str | None = None  # find boxes for what the store holds, a further set of this name


def parse_nothing(captions: Sequence[str], names: Sequence[str]) -> "Future[Parsed]":
    """What stands for a parser where no caption is read."""
    raise AssertionError("no caption is read where boxes alone are asked for")


@cache
def _versions() -> dict[str, str]:
    """Of what the rows depend on."""
    found = {name: version(name) for name in ("macco", "spacy", "torch", "transformers")}
    return found | {"python": platform.python_version()}


def parse_here(config: ExtractConfig) -> Parse:
    """Parse in a thread of this process."""
    parser = load_parser(config.parser, config.rules)
    thread = ThreadPoolExecutor(1, "macco-parse")
    return lambda captions, names: thread.submit(parser.parse, captions, names)


@dataclass
class _Picture:
    """One image of a shard with its captions; `found` comes last."""

    source: SourceImage
    rows: list[Row]
    image: Measured | None = None
    found: Found = field(default_factory=dict)

    def good(self) -> list[Row]:
        return [row for row in self.rows if row.status == OK]

    def refuse(self, status: Status, error: str) -> None:
        """Nothing can be done with those rows that were good so far."""
        for row in self.good():
            row.status, row.error = status, error

    def phrases(self) -> list[str]:
        """What the detector is asked about this image, for all its captions."""
        graphs = (row.graph for row in self.good())
        return list(
            dict.fromkeys(
                c.phrase for graph in graphs for c in graph if c.kind == OBJECT and c.phrase and not c.denied
            )
        )


@dataclass
class _Chunk:
    """Some images of a shard, whose captions are being parsed: those of `rows`, in order."""

    pictures: list[_Picture]
    rows: list[Row]
    graphs: "Future[Parsed]"


class Extractor:
    """Both models, loaded once; call `extract` for each shard."""

    def __init__(self, config: ExtractConfig, parse: Parse | None = None) -> None:
        from macco.preprocess.detectors import load_detector

        keep_freed()
        self.config = config
        self.parse = parse or parse_here(config)
        self._decoders = ThreadPoolExecutor(min(DECODERS, cores()), "macco-decode")
        self.detector = load_detector(
            config.detector,
            device=config.device,
            dtype=config.dtype,
            batch_size=config.batch_size,
            box_threshold=config.box_threshold,
            nms_iou=config.nms_iou,
            max_boxes_per_phrase=config.max_boxes,
        )

    def commit(self, store: Store, job: Job) -> dict[str, int]:
        """Extract a shard into the store, or beside it; return its samples by status.

        Of a job with `redo` only those rows are extracted, and the rest is taken from what the store holds.
        """
        shard, redo = job.shard, job.redo
        if job.boxes is not None:
            return reground(self.detector, store, shard.name, job.boxes)
        tables, record = self.extract(shard, redo)
        if redo is not None:
            tables = _merge({name: store.table(name, shard.name) for name in TABLES}, tables, redo)
        statuses = Counter(tables["samples"]["status"].to_pylist())
        (store.stage if job.stage else store.commit)(shard.name, tables, record)
        return dict(statuses)

    def extract(
        self, shard: Shard, only: Collection[int] | None = None
    ) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return the shard's tables (see pipeline.schema) and its record: input, versions, seconds per step.

        Of the seconds `detector` are those in which it was at work; `decoders` are those of all threads that decode.
        """
        clock = _Clock()
        start = time.monotonic()
        self.detector.counts.clear()
        counts: Counter[str] = Counter()
        tables = ShardTables(shard.dataset, shard.name)
        content, stamp = (
            Content(shard.url),
            stamps([shard.url])[shard.url],
        )  # of the file as it is before it is read
        for chunk in _ahead(self._chunks(shard, only, clock, content)):
            with clock("parse"):
                parsed = held([row.caption or "" for row in chunk.rows], chunk.graphs.result())
                counts.update(parsed.counts)
                for row, graph in zip(chunk.rows, parsed.graphs, strict=True):
                    if isinstance(graph, CaptionError):
                        row.status, row.error = graph
                    else:
                        row.graph = graph
            with clock("ground"):
                self._ground(shard.name, chunk.pictures, clock)
            with clock("rows"):
                for picture in chunk.pictures:
                    tables.add(picture.source, picture.image, picture.rows, picture.found)
        record = {
            "shard": shard.name,
            "dataset": shard.dataset,
            "input": shard.record() | {"fingerprint": stamp, "content": content.record()},
            "max_side": self.detector.max_side
            or SIDE,  # at which an audit makes the hashes that are not here
            "counts": {name: n for name, n in sorted((counts + self.detector.counts).items()) if n},
            "seconds": {"total": round(time.monotonic() - start, 3)} | clock.seconds(),
            "versions": _versions(),
        }
        return tables.finish(), record

    def _chunks(
        self, shard: Shard, only: Collection[int] | None, clock: "_Clock", content: Content
    ) -> Iterator[_Chunk]:
        numbered = self._numbered(shard, only, content)
        while True:
            with clock("read"):
                pictures = list(islice(numbered, CHUNK))
            if not pictures:
                return
            with clock("decode"):
                each = self._decoders.map if self.detector.max_side else map  # a header is read at once
                for seconds in each(self._decode, pictures):
                    clock.add("decoders", seconds)
            rows = [row for picture in pictures for row in picture.good()]
            names = [
                sample_id(shard.dataset, shard.name, picture.source.key, row.caption_id)
                for picture in pictures
                for row in picture.good()
            ]
            yield _Chunk(pictures, rows, self.parse([row.caption or "" for row in rows], names))

    def _numbered(self, shard: Shard, only: Collection[int] | None, content: Content) -> Iterator[_Picture]:
        number = count()
        for source in shard.read():
            content.add(source)
            rows = [Row(caption_id, next(number), *row) for caption_id, row in enumerate(source.rows())]
            if only is not None:
                rows = [row for row in rows if row.number in only]
            for row in rows:
                if row.status == OK and (bad := caption_status(row.caption, self.config.max_caption_chars)):
                    row.status, row.error = bad
            if rows:
                yield _Picture(source, rows)

    def _decode(self, picture: _Picture) -> float:
        """Decode it and take its hash, or measure it, or note why it cannot be; returns the seconds that this took."""
        start, source, limit = time.perf_counter(), picture.source, self.config.max_pixels
        if source.status == OK and source.image is not None:
            try:
                if not self.detector.max_side:
                    picture.image = measure(BytesIO(source.image), max_pixels=limit)
                else:
                    whole = decode(source.image, max_pixels=limit, max_side=self.detector.max_side)
                    picture.image, _ = whole, whole.code
            except ImageError as error:
                for row in picture.rows:
                    row.status, row.error = error.status, str(error)
        return time.perf_counter() - start

    def _ground(self, shard: str, pictures: Sequence[_Picture], clock: "_Clock") -> None:
        """Find boxes by phrase in each image, or note why there are none; an image's phrases are asked at once."""
        asked = [
            (picture, picture.image.image, picture.phrases())
            for picture in pictures
            if isinstance(picture.image, Decoded)
        ]
        asked = [one for one in asked if one[2]]
        images, phrases = [image for _, image, _ in asked], [own for _, _, own in asked]
        results: Sequence[Detections | Exception]
        with clock("detector"):
            if isinstance(self.detector, Lookup):
                sources = [picture.source for picture, _, _ in asked]
                names = [image_names(one.key, one.member, one.source) for one in sources]
                results = self.detector.look_up(shard, names, phrases)
            else:
                results = self._detect(images, phrases)
        for (picture, _, own), result in zip(asked, results, strict=True):
            if isinstance(result, Exception):
                picture.refuse(Status.GROUNDING_FAILED, f"{type(result).__name__}: {result}")
                continue
            result = held_boxes(result, len(own), self.detector.counts)
            of_phrase = {phrase: result.phrase == number for number, phrase in enumerate(own)}
            picture.found = {phrase: (result.boxes[m], result.scores[m]) for phrase, m in of_phrase.items()}

    def _detect(self, pictures: list[Image], phrases: list[list[str]]) -> list[Detections | Exception]:
        """Detect in all pictures at once; where that fails, one by one, so that only the bad ones fail."""
        before = Counter(self.detector.counts)
        try:
            return list(self.detector.detect(pictures, phrases))
        except Exception:
            self.detector.counts = before
            results: list[Detections | Exception] = []
            for picture, asked in zip(pictures, phrases, strict=True):
                try:
                    results += self.detector.detect([picture], [asked])
                except Exception as error:
                    results.append(error)
            if all(isinstance(result, Exception) for result in results):
                raise  # not the pictures' fault
            return results


def _merge(
    old: dict[str, pa.Table], new: dict[str, pa.Table], redone: Collection[int]
) -> dict[str, pa.Table]:
    """The new rows in place of the old ones that were redone, in the shard's order."""
    import pyarrow.compute as pc

    gone = pc.is_in(old["samples"]["row"], pa.array(sorted(redone), pa.int32()))
    kept = old["samples"].filter(pc.invert(gone))
    samples = pa.concat_tables([kept, new["samples"]]).sort_by("row")
    place = {sample: number for number, sample in enumerate(samples["sample_id"].to_pylist())}
    merged = {"samples": samples}
    for name in ("concepts", "boxes"):
        rows = old[name].filter(pc.is_in(old[name]["sample_id"], kept["sample_id"].combine_chunks()))
        table = pa.concat_tables([rows, new[name]])
        order = np.argsort([place[sample] for sample in table["sample_id"].to_pylist()], kind="stable")
        merged[name] = table.take(pa.array(order, pa.int64()))
    return merged


class _Clock:
    """Seconds by step; steps of different threads overlap, so their sum may exceed the total."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(step, time.perf_counter() - start)

    def add(self, step: str, seconds: float) -> None:
        """Count seconds that were taken elsewhere."""
        self._seconds[step] += seconds  # type: ignore[assignment]

    def seconds(self) -> dict[str, float]:
        return {step: round(seconds, 3) for step, seconds in sorted(self._seconds.items())}


def _ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Prepare the next chunk in a thread while the caller works on this one."""
    with ThreadPoolExecutor(1, "macco-read") as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk
