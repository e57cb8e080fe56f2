"""One file to look at, without a server: the page of `serve` with some images of a store inside."""

import base64
from pathlib import Path
from typing import Any

from macco.pipeline.folder import put_file
from macco.pipeline.page.condition import meeting
from macco.pipeline.page.figures import BROKEN, Place, figures, jpeg
from macco.pipeline.page.gallery import PER_PAGE
from macco.pipeline.page.html import whole
from macco.pipeline.page.index import SPLITS
from macco.pipeline.page.tables import Tables
from macco.pipeline.query import connect
from macco.pipeline.schema import NEGATIVES
from macco.pipeline.store import Store
from macco.pipeline.tags import by_sample

SIDE = 640  # pixels of an image's long side on the page


def write_page(store: Store, out: Path, *, where: str, limit: int, threshold: float) -> int:
    """Write the first `limit` images of which a caption meets the SQL condition; return how many there were.

    A condition that names columns of concepts or boxes is met by a sample that has one such concept or box.
    """
    connection = connect(store, sealed=True)
    names = connection.execute(
        f"SELECT dataset, shard, key FROM {meeting(connection, where)} GROUP BY ALL ORDER BY ALL LIMIT {limit}"
    ).fetchall()
    shards = sorted({shard for _, shard, _ in names})
    tables = Tables(store).of(shards, negatives=store.names(".parquet", NEGATIVES))
    found = figures(connection, tables, names, by_sample(store))
    for figure in found:
        figure |= _image(Place(*(figure[name] for name in Place._fields)))
    about = {"store": store.url, "name": store.url.rstrip("/").rpartition("/")[2], "threshold": threshold}
    put_file(out, whole(about | {"page": PER_PAGE, "splits": SPLITS}, found).encode())
    return len(names)


def _image(place: Place) -> dict[str, Any]:
    """A picture as part of the page, or why there is none."""
    try:
        return {"src": f"data:image/jpeg;base64,{base64.b64encode(jpeg(place, SIDE)).decode()}"}
    except BROKEN as error:
        return {"src": None, "lost": str(error)}
