"""One shard in, three Arrow tables out: read, decode, parse, ground. The unit of work, retry and resume."""

import platform
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from PIL.Image import Image

from macco.pipeline.concept import Concept
from macco.pipeline.pictures import Decoded, ImageError, decode
from macco.pipeline.schema import OBJECT, OK, TABLES
from macco.pipeline.store import Store
from macco.pipeline.urls import fingerprint
from macco.preprocess.config import ExtractConfig
from macco.preprocess.detectors import Detections
from macco.preprocess.extraction.tables import Found, Row, ShardTables
from macco.preprocess.graph.refusal import caption_status
from macco.preprocess.sources import Item, Shard

CHUNK = 128  # images decoded, parsed and grounded together; the next chunk is read meanwhile

Graphs = list[list[Concept]]
# Starts parsing captions; what it returns waits for their graphs.
Parse = Callable[[Sequence[str]], Callable[[], Graphs]]


def parse_here(config: ExtractConfig) -> Parse:
    """Parse in this process."""
    from macco.preprocess.graph.language import load_pipeline
    from macco.preprocess.graph.scene_graphs import SceneGraphs

    graphs = SceneGraphs(load_pipeline(config.parser), rules=config.rules)

    def parse(captions: Sequence[str]) -> Callable[[], Graphs]:
        return lambda: graphs.parse(captions)

    return parse


@dataclass
class _Chunk:
    """Some images of a shard: read and decoded, their captions being parsed."""

    items: list[Item]
    images: list[Decoded | None]
    rows: list[list[Row]]
    graphs: Callable[[], Graphs]  # of the rows that are ok, in order


class Extractor:
    """Both models, loaded once; call `extract` for each shard."""

    def __init__(self, config: ExtractConfig, parse: Parse | None = None) -> None:
        from macco.preprocess.detectors import load_detector

        self.config = config
        self.parse = parse or parse_here(config)
        self.detector = load_detector(
            config.detector,
            device=config.device,
            dtype=config.dtype,
            batch_size=config.batch_size,
            box_threshold=config.box_threshold,
            nms_iou=config.nms_iou,
            max_boxes_per_phrase=config.max_boxes,
        )

    def commit(self, store: Store, shard: Shard, redo: Collection[int] | None = None) -> dict[str, int]:
        """Extract a shard into the store; return its samples by status.

        With `redo`, only those rows are extracted, and the rest is taken from what the store holds.
        """
        tables, record = self.extract(shard, redo)
        if redo is not None:
            tables = _merge({name: store.table(name, shard.name) for name in TABLES}, tables, redo)
            # Until it is committed again the shard is no longer there: `retry` is to find it after a kill.
            store.fail(
                shard.name, {"shard": shard.name, "input": asdict(shard), "tries": 0, "error": "interrupted"}
            )
        statuses = Counter(tables["samples"]["status"].to_pylist())
        record |= {"samples": tables["samples"].num_rows, "concepts": tables["concepts"].num_rows}
        record |= {"boxes": tables["boxes"].num_rows, "statuses": dict(sorted(statuses.items()))}
        store.commit(shard.name, tables, record)
        return dict(statuses)

    def extract(
        self, shard: Shard, only: Collection[int] | None = None
    ) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return the shard's tables (see pipeline.schema) and its record: input, versions, seconds per step."""
        clock = _Clock()
        start = time.monotonic()
        tables = ShardTables(shard.dataset, shard.name)
        for chunk in _ahead(self._chunks(shard, only, clock)):
            with clock("parse"):
                graphs = iter(chunk.graphs())
            ready = [
                (item, image, [row for row in group if row.status == OK])
                for item, image, group in zip(chunk.items, chunk.images, chunk.rows, strict=True)
            ]
            concepts = [[next(graphs) for _ in ok] for _, _, ok in ready]
            with clock("ground"):
                boxes = self._ground([image for _, image, _ in ready], concepts)
            with clock("rows"):
                for (item, image, ok), group, graph, found in zip(
                    ready, chunk.rows, concepts, boxes, strict=True
                ):
                    if isinstance(found, Exception):
                        for row in ok:
                            row.status, row.error = "grounding_failed", f"{type(found).__name__}: {found}"
                        tables.add(item, image, group, [], {})
                    else:
                        tables.add(item, image, group, graph, found)
        record = {
            "shard": shard.name,
            "dataset": shard.dataset,
            "input": asdict(shard) | {"fingerprint": fingerprint(shard.url)},
            "seconds": {"total": round(time.monotonic() - start, 3)} | clock.seconds(),
            "versions": {name: version(name) for name in ("macco", "spacy", "torch", "transformers")}
            | {"python": platform.python_version()},
        }
        return tables.finish(), record

    def _chunks(self, shard: Shard, only: Collection[int] | None, clock: "_Clock") -> Iterator[_Chunk]:
        numbered = self._number(shard, only)
        while True:
            with clock("read"):
                part = list(islice(numbered, CHUNK))
            if not part:
                return
            with clock("decode"):
                images = [self._decode(item, group) for item, group in part]
            captions = [row.caption for _, group in part for row in group if row.status == OK]
            items, groups = [item for item, _ in part], [group for _, group in part]
            yield _Chunk(items, images, groups, self.parse([caption or "" for caption in captions]))

    def _number(self, shard: Shard, only: Collection[int] | None) -> Iterator[tuple[Item, list[Row]]]:
        number = 0
        for item in shard.read():
            group = []
            for caption_id, (caption, status, error) in enumerate(item.rows()):
                if status == OK and (bad := caption_status(caption, self.config.max_caption_chars)):
                    status, error = bad
                group.append(Row(caption_id, number, caption, status, error))
                number += 1
            if only is not None:
                group = [row for row in group if row.number in only]
            if group:
                yield item, group

    def _decode(self, item: Item, group: list[Row]) -> Decoded | None:
        if item.status != OK or item.image is None:
            return None
        try:
            return decode(item.image, max_pixels=self.config.max_pixels, max_side=self.detector.max_side)
        except ImageError as error:
            for row in group:
                row.status, row.error = error.status, str(error)
            return None

    def _ground(
        self, images: Sequence[Decoded | None], concepts: Sequence[Sequence[Sequence[Concept]]]
    ) -> list[Found | Exception]:
        """Boxes by phrase for each image, or why there are none; all phrases of an image are asked at once."""
        phrases = [
            list(dict.fromkeys(c.phrase for graph in graphs for c in graph if c.kind == OBJECT and c.phrase))
            for graphs in concepts
        ]
        pairs = [
            (image.image, asked) for image, asked in zip(images, phrases, strict=True) if image and asked
        ]
        results = iter(self._detect([picture for picture, _ in pairs], [asked for _, asked in pairs]))
        found: list[Found | Exception] = []
        for image, asked in zip(images, phrases, strict=True):
            result = next(results) if image and asked else None
            if result is None or isinstance(result, Exception):
                found.append(result or {})
                continue
            of_phrase = {phrase: result.phrase == number for number, phrase in enumerate(asked)}
            found.append({phrase: (result.boxes[m], result.scores[m]) for phrase, m in of_phrase.items()})
        return found

    def _detect(self, pictures: list[Image], phrases: list[list[str]]) -> list[Detections | Exception]:
        """Detect in all pictures at once; where that fails, one by one, so that only the bad ones fail."""
        try:
            return list(self.detector.detect(pictures, phrases))
        except Exception:
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
            self._seconds[step] += time.perf_counter() - start  # type: ignore[assignment]

    def seconds(self) -> dict[str, float]:
        return {step: round(seconds, 3) for step, seconds in sorted(self._seconds.items())}


def _ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Prepare the next chunk in a thread while the caller works on this one."""
    ready: queue.Queue[_Chunk | BaseException | None] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def put(value: _Chunk | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
                return
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for chunk in chunks:
                put(chunk)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=fill, name="macco-read", daemon=True)
    thread.start()
    try:
        while (chunk := ready.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
    finally:
        stop.set()
        thread.join()
