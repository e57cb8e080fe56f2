"""Real photographs with real captions through both real backends (random weights, few layers)."""

from pathlib import Path

import pytest

from macco.pipeline.query import connect
from macco.pipeline.store import Store
from macco.preprocess.config import ExtractConfig
from macco.preprocess.extraction.run import Job, RunConfig, extract_shards
from macco.preprocess.sources import plan
from tests.support import DATA


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["original", "grounding-dino", "mm-grounding-dino"])
def test_photos_go_through(kind: str, specs: dict[str, str], tmp_path: Path) -> None:
    config = ExtractConfig(detector=specs[kind], device="cpu", box_threshold=0.0, max_boxes=3)
    config.check()
    store = Store.create(str(tmp_path / "store"), config.settings())
    photos = DATA / "photos"
    shards = plan([f"{photos}/captions.json"], image_root=str(photos))
    summary = extract_shards(store, [Job(shard) for shard in shards], config, RunConfig(workers=0, retries=0))
    assert summary.failed == {}
    assert summary.samples == {"ok": 10}
    connection = connect(store)
    sizes = "SELECT DISTINCT key, width, height FROM samples ORDER BY key"
    assert [row[1:] for row in connection.execute(sizes).fetchall()] == [(320, 240), (500, 375)]
    # Every phrase was asked: a detector with threshold 0 gives each of them boxes, its best ones.
    silent = "SELECT phrase FROM concepts c ANTI JOIN boxes USING (concept_id) WHERE kind = 'object'"
    assert connection.execute(silent).fetchall() == []
    most = "SELECT max(n) FROM (SELECT count(*) AS n FROM boxes GROUP BY concept_id)"
    assert connection.execute(most).fetchall() == [(3,)]
