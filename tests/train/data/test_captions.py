"""Several captions of an image: one an epoch, or all; never in each other's way."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch

from macco.pipeline.schema import OK, SAMPLES, TABLES, sample_id
from macco.pipeline.store import Store
from macco.train.config import DataConfig, MaskConfig
from macco.train.data import index as index_module
from macco.train.data.index import build
from macco.train.data.selection import Selection
from macco.train.losses.pairs import PairIds, same
from macco.train.objectives.macco.batches import open_training_data
from tests.support.drawn import drawn_store, jpeg, record, rows, tar

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
WORDS = ("red", "big", "old", "sad", "wet")


def coco(folder: Path, shards: int = 4, images: int = 30, captions: int = 5) -> Store:
    """A store shaped like COCO: neighbours in a shard are captions of one image; a few of them failed."""
    store = Store.create(str(folder / "store"), {"made": "for tests"})
    for number in range(shards):
        shard, source = f"{number:05}", folder / f"{number:05}.tar"
        places = tar(source, [jpeg(images * number + image) for image in range(images)])
        samples = []
        for image, (offset, size) in enumerate(places):
            for caption in range(captions - image % 2):
                key = f"{image:09}"
                samples.append(
                    {
                        "sample_id": sample_id("d", shard, key, caption),
                        "dataset": "d",
                        "shard": shard,
                        "key": key,
                        "caption_id": caption,
                        "row": len(samples),
                        "source": str(source),
                        "member": f"{key}.jpg",
                        "offset": offset,
                        "size": size,
                        "dhash": 0,
                        "width": 80,
                        "height": 60,
                        "caption": f"A {WORDS[caption]} dog number {image} of {number}.",
                        "status": OK if (image + caption) % 7 else "not_english",
                        "error": None,
                    }
                )
        tables = {name: schema.empty_table() for name, schema in TABLES.items()}
        tables["samples"] = pa.Table.from_pylist(samples, schema=SAMPLES)
        store.commit(shard, tables, record(shard, source) | {"samples": len(samples)})
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return coco(tmp_path_factory.mktemp("coco"))


def load(store: Store, **changes: object):  # type: ignore[no-untyped-def]
    options = {"image_size": 32, "patch_size": 8, "batch_size": 20, "workers": 0, "log": lambda line: None}
    return open_training_data(store.url, TOKENIZER, **(options | changes))  # type: ignore[arg-type]


def image_of(name: str) -> str:
    return name.rpartition("/")[0]


def test_one_shows_each_image_once_an_epoch_with_another_of_its_captions(store: Store) -> None:
    loader = load(store, captions="one", batch_size=10)
    assert loader.samples == 120
    seen: Counter[str] = Counter()
    for _ in range(12):
        shown = [name for batch in loader for name in batch.ids]
        assert len({image_of(name) for name in shown}) == len(shown) == 120
        seen.update(shown)
    whole = store.table("samples", "00000").to_pylist()
    good = {row["sample_id"] for row in whole if row["status"] == OK}
    shown = {name for name in seen if name.split("/")[1] == "00000"}
    assert shown <= good
    assert len(shown) > 0.9 * len(good)  # in time all: see below


def test_with_one_no_batch_has_two_pairs_of_an_image_and_with_all_none_is_a_wrong_answer(
    store: Store,
) -> None:
    for batch in load(store, captions="one"):
        assert len(set(batch.image_ids.tolist())) == len(batch)
    together = 0
    for batch in load(store, captions="all"):
        ids = PairIds(batch.image_ids, batch.caption_ids)
        shared = same(ids, ids, 0)
        for i, one in enumerate(batch.ids):
            for j, other in enumerate(batch.ids):
                assert shared[i, j] == (i != j and image_of(one) == image_of(other))
        together += int(shared.any(1).sum())
    assert together > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_one_is_a_function_of_seed_epoch_and_place(store: Store, workers: int) -> None:
    first = load(store, captions="one", workers=workers)
    whole = [batch.ids for _ in range(2) for batch in first]
    again = load(store, captions="one")
    list(islice(iter(again), 3))
    later = load(store, captions="one")
    later.load_state_dict(again.state_dict())
    rest = [batch.ids for batch in later] + [batch.ids for batch in later]
    assert rest == whole[3:]
    ranks = [load(store, captions="one", rank=rank, world_size=2) for rank in (0, 1)]
    shown = [name for loader in ranks for batch in loader for name in batch.ids]
    assert {image_of(name) for name in shown} == {image_of(name) for ids in whole[:6] for name in ids}
    first.close()


@pytest.mark.parametrize("piece", [1, 3, 7, 50, 8192])
def test_pieces_hold_whole_images(store: Store, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PIECE", piece)
    selection = Selection.of("row % 3 <> 1", MaskConfig())
    found = build(store, selection, lambda line: None, one_caption=True)
    every = build(store, selection, lambda line: None)
    picked: set[tuple[int, int]] = set()
    for epoch in range(25):
        shown = [
            (int(found.shard[p]), int(row))
            for p in range(len(found.shard))
            for row in found.rows(p, 0, epoch)
        ]
        assert len(set(shown)) == len(shown) == len(found)
        assert np.array_equal(
            np.diff(found.starts), [len(found.rows(p, 0, epoch)) for p in range(len(found.shard))]
        )
        picked |= set(shown)
    selected = {
        (int(every.shard[p]), int(row)) for p in range(len(every.shard)) for row in every.rows(p, 0, 0)
    }
    assert picked == selected
    keys = {(s, store.table("samples", found.shards[s])["key"][row].as_py()) for s, row in selected}
    assert len(found) == len(keys)


def test_a_store_of_one_caption_an_image_is_the_same_either_way(tmp_path: Path) -> None:
    url = drawn_store(tmp_path)
    sizes = {
        captions: open_training_data(
            url,
            TOKENIZER,
            image_size=32,
            patch_size=8,
            batch_size=8,
            captions=captions,
            log=lambda line: None,
        ).samples
        for captions in ("all", "one")
    }
    assert sizes == {"all": 60, "one": 60}


def test_equal_captions_have_one_number_as_the_model_reads_them(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "store"), {"made": "for tests"})
    source = tmp_path / "00000.tar"
    tables = rows("00000", source, tar(source, [jpeg(i) for i in range(4)]))
    samples = tables["samples"]
    at = samples.column_names.index("caption")
    texts = ["A red dog.", "a  RED dog .", "A red cat.", "A red dog."]
    tables["samples"] = samples.set_column(at, samples.schema.field(at), [texts])
    store.commit(
        "00000", tables | {n: TABLES[n].empty_table() for n in ("concepts", "boxes")}, record("00000", source)
    )
    batch = next(iter(load(store, batch_size=4)))
    by_row = {
        int(name.split("/")[2]): number
        for name, number in zip(batch.ids, batch.caption_ids.tolist(), strict=True)
    }
    assert by_row[0] == by_row[1] == by_row[3] != by_row[2]
    assert len(set(batch.image_ids.tolist())) == 4
    assert batch.image_ids.dtype == batch.caption_ids.dtype == torch.int64
    assert DataConfig().captions == "all"
