"""A store as the page asks for it: filtered, counted, a page of images at a time, tagged."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from macco.pipeline import tags
from macco.pipeline.errors import UserError
from macco.pipeline.page.chosen import Chosen
from macco.pipeline.page.figures import Place, figures, jpeg
from macco.pipeline.page.filter import Filter
from macco.pipeline.page.index import Index, Mask, fill, nothing
from macco.pipeline.page.questions import Questions
from macco.pipeline.page.tables import Tables
from macco.pipeline.query import connect, reason
from macco.pipeline.schema import NEGATIVES
from macco.pipeline.store import Store

KEPT: Final = 16  # filters, conditions and places of images that are remembered
PER_PAGE: Final = 24
MOST: Final = 200  # images in one answer

T = TypeVar("T")


class Gallery:
    """Answers for the page. Any number of threads may ask; the index fills meanwhile."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = nothing()
        self.failed: str | None = None  # why not all of the store is shown
        try:
            store.require_whole()
        except UserError as error:
            self.failed = str(error)
        self._tables = Tables(store)
        self._negatives = store.names(".parquet", NEGATIVES)
        self._rows = connect(store, views=False, sealed=True)
        self._filling = connect(store, views=False, sealed=True)
        self._thread: threading.Thread | None = None
        self._questions = Questions(store)
        self._kept = Kept(KEPT)
        self._places = Kept(50 * KEPT)
        self._tags = tags.by_sample(self.store)

    def start(self) -> None:
        """Let the index fill beside whatever is asked; the first shard is waited for."""
        first = threading.Event()

        def work() -> None:
            try:
                with self._questions.limited(self._filling, inf):
                    for index in fill(self.store, self._filling):
                        self.index = index
                        first.set()
                        if self._questions.ended:
                            return
            except (duckdb.Error, OSError, UserError, pa.ArrowException) as error:
                self.failed = reason(error) if isinstance(error, duckdb.Error) else str(error)
            finally:
                first.set()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        first.wait()

    def end(self) -> None:
        """Interrupt all that DuckDB does for us; a signal's handler may call it."""
        self._questions.end()

    def close(self) -> None:
        """End all: the interpreter must not end while DuckDB is at work in a thread."""
        self._questions.close()
        if self._thread is not None:
            self._thread.join()
        for connection in (self._filling, self._rows):
            connection.close()

    def fill(self) -> None:
        """Have all of the index."""
        for index in fill(self.store, self._filling):
            self.index = index

    def figures(self, filter: Filter, at: int = 0, limit: int = PER_PAGE) -> dict[str, Any]:
        """The images from place `at` of the filter's order on, and how many there are."""
        index, at, limit = self.index, max(0, at), max(1, min(limit, MOST))
        order = self._kept(("order", filter, index.share), lambda: self._chosen(filter, index).order)
        found = self._figures([index.place(int(image)) for image in order[at : at + limit]])
        for figure in found:
            self._places(figure["id"], partial(_place, figure))
        return {"figures": found, "at": at, "total": len(order), "share": index.share}

    def figure(self, name: str) -> dict[str, Any]:
        """One image by its id; raises UserError where there is none."""
        image = self.index.find(name)
        if image is None:
            raise UserError(f"no image {name!r} in this store" + (", so far" if self.index.share < 1 else ""))
        return self._figures([self.index.place(image)])[0]

    def jpeg(self, name: str, side: int) -> bytes:
        """An image by its id; raises what `figures.jpeg` raises, and UserError."""
        return jpeg(self._places(name, lambda: _place(self.figure(name))), side)

    def facets(self, filter: Filter, like: str = "") -> dict[str, Any]:
        index, known = self.index, sorted({tag for some in self._tags.values() for tag in some})
        key = ("facets", filter, like, index.share, tuple(known))
        return self._kept(key, lambda: self._chosen(filter, index).facets(known, like))

    def where(self, filter: Filter) -> str:
        """What a filter shows, as a condition for --where."""
        return filter.sql(self._asked(filter.where)[1] if filter.where.strip() else "")

    def scores(self, filter: Filter) -> dict[str, Any]:
        index, free = self.index, replace(filter, score=None, sort="store", seed=0)
        return self._kept(("scores", free, index.share), lambda: self._chosen(free, index).scores())

    def tag(self, name: str, tag: str, on: bool) -> list[str]:
        """Put a tag on all captions of an image, or take it off; its tags from now on."""
        figure = self.figure(name)
        tags.change(self.store, [caption["sample_id"] for caption in figure["captions"]], tag, on)
        self._tags = tags.by_sample(self.store)
        self._questions.forget()
        self._kept.forget()
        return list(self.figure(name)["tags"])

    def _chosen(self, filter: Filter, index: Index) -> Chosen:
        def met(what: str, value: str) -> Mask:
            key = (what, value, index.share)
            return self._kept(key, lambda: self._met(index, what, value))

        return Chosen(index, filter, met)

    def _met(self, index: Index, what: str, value: str) -> Mask:
        mask = np.zeros(len(index), np.bool_)
        if what == "tag":
            names = {sample.rpartition("/")[0] for sample, some in self._tags.items() if value in some}
            mask[[image for name in names if (image := index.find(name)) is not None]] = True
            return mask
        met, _ = self._asked(value)
        with self._rows.cursor() as cursor, self._questions.limited(cursor):
            cursor.register("_images", index.table())
            cursor.register("_met", met)
            mask[
                cursor.execute("SELECT image FROM _images JOIN _met USING (shard, key)").fetchnumpy()["image"]
            ] = True
        return mask

    def _asked(self, where: str) -> tuple[pa.Table, str]:
        return self._kept(("met", where), lambda: self._questions.met(where))

    def _figures(self, names: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
        tables = self._tables.of(sorted({shard for _, shard, _ in names}), self._negatives)
        with self._rows.cursor() as cursor, self._questions.limited(cursor):
            return figures(cursor, tables, names, self._tags)


def _place(figure: dict[str, Any]) -> Place:
    return Place(*(figure[name] for name in Place._fields))


class Kept:
    """Answers that are remembered, the last `size` of them. Who asks for one that is being made waits for it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """make: may ask for other keys, but not for this one."""
        with self._lock:
            answer = self._answers.get(key)
            if mine := answer is None:
                answer = self._answers[key] = Future()
            self._answers.move_to_end(key)
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        if mine:
            try:
                answer.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._answers.get(key) is answer:
                        del self._answers[key]
                answer.set_exception(error)
        found: T = answer.result()
        return found

    def forget(self) -> None:
        with self._lock:
            self._answers.clear()
