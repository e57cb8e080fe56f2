"""Stores for the page, some of whose text is hostile; a server of one; what a page that `view` wrote holds."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import uvicorn
from starlette.applications import Starlette

from macco.pipeline.schema import TABLES, sample_id
from macco.pipeline.store import Store
from macco.pipeline.tags import change
from tests.support.drawn import CAPTION, jpeg, record, rows, tar
from tests.support.rows import record as rows_record
from tests.support.rows import tables

# Keys, and what follows the caption: text everywhere, whatever a browser or a file system would make of it.
HOSTILE = {
    "../../../etc/passwd": "<script>window.owned = 1</script>",
    "</script><script>window.owned = 1</script>": "</script><img src=x onerror='window.owned = 1'>",
    "a'b\"c": 'it\'s "so" & so; DROP TABLE samples; --',
    "train/x?id=1&side=2#3": "🐕‍🦺 ünïcode \u202e reversed",
    "%2e%2e%2fstore.json": "{{ 7 * 7 }} ${window.owned = 1}",
}

WORDS = ("", "dog", "cat", "red cup")


def hostile_store(folder: Path) -> Store:
    """One shard; an image of each key of HOSTILE, and one whose file is none."""
    source = folder / "00000.tar"
    places = tar(source, [jpeg(40 * number) for number in range(len(HOSTILE))])
    made = rows("00000", source, [*places, (0, 10)])
    keys = {f"{number:09}": key for number, key in enumerate([*HOSTILE, "lost"])}
    store = Store.create(str(folder / "store"), {"made": "<b>for tests</b>"})
    tables = {}
    for name, table in made.items():
        changed = [_renamed(row, keys) for row in table.to_pylist()]
        for row in changed if name == "samples" else ():
            row["caption"] = f"{CAPTION} {HOSTILE.get(row['key'], '')}"
        tables[name] = pa.Table.from_pylist(changed, schema=TABLES[name])
    store.commit("00000", tables, record("00000", source))
    return store


def _renamed(row: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    old = row["key"]
    return {
        name: value.replace(f"/{old}", f"/{keys[old]}")
        if isinstance(value, str) and name.endswith("_id")
        else value
        for name, value in row.items()
    } | {"key": keys[old]}


def captioned_store(folder: Path) -> Store:
    """Images of two captions, each one word: every pair of WORDS, scores by the word; "" failed, "cat" is tagged."""
    pairs = list(product(WORDS, repeat=2))
    store = Store.create(str(folder / "store"), {})
    made = {}
    for name, table in tables("a", [word for pair in pairs for word in pair]).items():
        kept = []
        for row in table.to_pylist():
            image, caption = divmod(int(row["key"]), 2)
            word = pairs[image][caption]
            ids = {"key": f"{image:04}", "caption_id": caption}
            ids["sample_id"] = sample_id("d", "a", ids["key"], caption)
            if "concept_id" in row:
                ids["concept_id"] = f"{ids['sample_id']}/0"
            if "score" in row:
                ids["score"] = 0.1 * WORDS.index(word) + 0.001 * image
            if name == "samples" and not word:
                ids |= {"caption": None, "status": "missing_caption"}
            if name == "samples" or word:
                kept.append(row | ids)
        made[name] = pa.Table.from_pylist(kept, schema=TABLES[name])
    store.commit("a", made, rows_record("a"))
    cats = [row["sample_id"] for row in made["samples"].to_pylist() if row["caption"] == "cat"]
    change(store, cats, "good", True)
    return store


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The address of a server of `app` on this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def held(page: Path) -> list[dict[str, Any]]:
    """The figures that a page of `view` holds."""
    (data,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    figures: list[dict[str, Any]] = json.loads(data)["figures"]
    return figures
