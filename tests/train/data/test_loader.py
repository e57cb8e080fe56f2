"""Batches from a store: the right rows, in an order that depends on nothing but seed and epoch."""

import math
import os
import pickle
import shutil
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.preprocess.exchange.cache import write_cache
from macco.train.config import MaskConfig
from macco.train.data import crops as images
from macco.train.data.loader import Batches
from macco.train.data.negatives import write_negatives
from macco.train.data.shuffle import Epoch
from macco.train.objectives.macco.batches import open_training_data
from tests.support.drawn import drawn_store, jpeg, record, rows, tar
from tests.support.rows import record as small_record
from tests.support.rows import tables

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
PER_EPOCH = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return drawn_store(tmp_path_factory.mktemp("drawn"))


def load(store, **changes):
    options = {"image_size": 32, "patch_size": 8, "batch_size": 8, "workers": 0, "log": lambda line: None}
    return open_training_data(store, TOKENIZER, **(options | changes))


def equal(one, other):
    tensors = ("images", "tokens", "text_mask", "patch_mask")
    return one.ids == other.ids and all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors)


def all_equal(some, others):
    return len(some) == len(others) and all(map(equal, some, others))


def red(batch):
    """The number of each image, by its colour."""
    return batch.images[:, 0].float().mean((1, 2)).round().int().tolist()


def numbers(batch):
    return [20 * int(name.split("/")[1]) + int(name.split("/")[2]) for name in batch.ids]


def test_batches_hold_images_captions_and_masks_of_their_rows(store):
    loader = load(store)
    batches = list(loader)
    assert len(batches) == len(loader) == PER_EPOCH
    batch = batches[0]
    assert batch.images.shape == (8, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert max(abs(a - b) for a, b in zip(red(batch), numbers(batch), strict=True)) <= 2
    assert torch.equal(
        batch.tokens, TOKENIZER(["A red dog is sitting on a small sofa."] * 8)[:, : batch.tokens.shape[1]]
    )
    words = [TOKENIZER.decode([int(t)]).strip() for t in batch.tokens[0][batch.text_mask[0]]]
    assert words == ["red", "sitting", "on", "small"]
    assert batch.patch_mask.any(1).all()
    assert batch.text_slots.samples == 8


def test_an_epoch_shows_each_sample_at_most_once_and_the_next_another_order(store):
    loader = load(store)
    first, second = ([name for batch in loader for name in batch.ids] for _ in range(2))
    assert len(set(first)) == len(first) == PER_EPOCH * 8
    assert first != second
    assert len({name.split("/")[1] for name in first[:8]}) > 1
    assert loader.epoch == 2


@pytest.mark.processes
def test_workers_change_nothing(store):
    alone = list(load(store))
    shared = load(store, workers=2)
    assert all_equal(alone, list(shared))
    shared.close()


@pytest.mark.processes
@pytest.mark.parametrize("taken", [0, 3, PER_EPOCH, PER_EPOCH + 2])
def test_a_resumed_run_gets_the_same_batches(store, taken):
    def endless(loader):
        while True:
            yield from loader

    first = load(store, workers=2)
    stream = endless(first)
    list(islice(stream, taken))
    state = first.state_dict()
    expected = list(islice(stream, 6))
    again = load(store)
    again.load_state_dict(state)
    assert all_equal(expected, list(islice(endless(again), 6)))
    first.close()


def test_a_loop_that_breaks_goes_on_where_it_was(store):
    whole, broken = list(load(store)), load(store)
    parts = [next(iter(broken)), next(iter(broken)), *broken]
    assert all_equal(whole, parts)


def test_ranks_share_an_epoch_in_equal_steps(store):
    parts = [load(store, rank=rank, world_size=3, batch_size=12) for rank in range(3)]
    shown = [[name for batch in part for name in batch.ids] for part in parts]
    assert {len(names) for names in shown} == {20}
    assert len({name for names in shown for name in names}) == 60


@pytest.mark.parametrize(("change", "named"), [({"seed": 1}, "seed"), ({"where": "row > 1"}, "training_set")])
def test_a_state_of_another_run_is_refused(store, change, named):
    state = load(store).state_dict()
    with pytest.raises(UserError, match=named):
        load(store, **change).load_state_dict(state)


def made(folder, captions, boxes=1, seed=0, negatives=True):
    shutil.rmtree(folder, ignore_errors=True)
    store = Store.create(str(folder), {"detector": "tiny"})
    for shard in "ab":
        store.commit(shard, tables(shard, captions, boxes=boxes), small_record(shard))
    store.close()
    if negatives:
        write_negatives(store, seed, lambda line: None)
    return store


@pytest.mark.parametrize(
    ("negatives", "changed", "named"),
    [
        (0, {"boxes": 2}, "the rows of"),
        (0, {"negatives": False}, None),
        (1, {"boxes": 2}, "the rows of"),
        (1, {"seed": 1, "captions": ["a dog of another store", "a cat of it"] * 4}, "the negatives of"),
        (1, {}, None),
    ],
)
def test_a_store_of_other_contents_under_the_same_name_is_refused(tmp_path, negatives, changed, named):
    captions = ["a dog", "a cat"] * 4

    def opened(**changes):
        return load(made(tmp_path / "s", **({"captions": captions} | changes)).url, negatives=negatives)

    state = opened().state_dict()
    loader = opened(**changed)
    former = {name: value for name, value in state.items() if name != "contents"}
    loader.load_state_dict(former)
    with pytest.raises(UserError, match=named) if named else nullcontext():
        loader.load_state_dict(state)


def test_another_number_of_ranks_may_go_on_between_epochs_only(store):
    loader = load(store)
    between = loader.state_dict()
    next(iter(loader))
    other = load(store, rank=0, world_size=2, batch_size=8)
    other.load_state_dict(between)
    with pytest.raises(UserError, match="batch_size"):
        other.load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    ("where", "samples", "words", "boxes"),
    [
        ("", 60, ["red", "sitting", "on", "small"], True),
        ("score >= 0.5 and kind <> 'relation'", 60, ["red", "small"], True),
        ("kind = 'relation'", 60, ["sitting", "on"], True),
        ("row BETWEEN 5 AND 14 and lemma = 'red'", 30, ["red"], True),
        ("score > 0.95 or y0 > 2", 60, ["red", "sitting", "on", "small"], False),
        ("shard <> '00001' and (head = 'red' or kind = 'object')", 40, ["red"], True),
    ],
)
def test_each_clause_drops_what_it_names(store, where, samples, words, boxes):
    lines = []
    loader = load(store, where=where, masks=MaskConfig(rectangle=0), log=lines.append)
    assert loader.samples == samples
    batch = next(iter(loader))
    seen = [TOKENIZER.decode([int(t)]).strip() for t in batch.tokens[0][batch.text_mask[0]]]
    assert seen == words
    assert batch.patch_mask.any(1).all() == batch.patch_mask.any() == boxes
    assert lines[-1] == f"training set: {samples} samples"


def test_what_each_clause_leaves_is_told(store):
    lines = []
    load(store, where="row < 10 and score > 0.7 and kind <> 'object'", log=lines.append)
    assert [line.split("leaves ")[1] for line in lines if "leaves" in line] == ["60", "30", "90", "60", "30"]


def test_samples_without_concepts_stay_unless_asked_otherwise(store):
    where = "kind = 'relation' or row < 10"
    assert load(store, where=where, masks=MaskConfig(relations="none")).samples == 60
    assert load(store, where=where, masks=MaskConfig(relations="none"), keep="concept").samples == 30
    assert load(store, where="score > 0.95 or row < 8", keep="box").samples == 24


@pytest.mark.parametrize(
    "where", ["colour = 'red'", "score >", "1; DROP TABLE x", "true LIMIT 3", "row IN (FROM boxes)"]
)
def test_a_condition_that_is_none_is_a_users_mistake(store, where):
    with pytest.raises(UserError, match="--where"):
        load(store, where=where)


def test_nothing_left_is_a_users_mistake(store, tmp_path):
    with pytest.raises(UserError, match="no sample"):
        load(store, where="row > 1000")
    with pytest.raises(UserError, match="too few"):
        load(store, batch_size=61)
    with pytest.raises(UserError, match=r"no store\.json"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="no image cache"):
        load(store, cache=str(tmp_path))


@pytest.mark.processes
def test_unreadable_images_are_replaced_counted_and_limited(tmp_path):
    source = tmp_path / "00000.tar"
    places = tar(source, [jpeg(i) for i in range(40)])
    data = bytearray(source.read_bytes())
    for offset, size in places[::4]:
        data[offset : offset + size] = os.urandom(size)
    source.write_bytes(data)
    store = Store.create(str(tmp_path / "store"), {})
    store.commit("00000", rows("00000", source, places), record("00000", source))
    loader = load(store.url)
    batches = list(loader)
    assert {len(batch) for batch in batches} == {8}
    assert loader.broken >= 10
    assert all(number % 4 for batch in batches for number in numbers(batch))
    assert all(len(set(batch.ids)) == 8 for batch in batches)
    again = load(store.url, workers=2)
    assert all_equal(batches, list(again))
    again.close()
    with pytest.raises(UserError, match="more than 3"):
        list(load(store.url, max_broken=3))


@pytest.mark.parametrize("workers", [0, 1])
def test_tars_that_have_gone_end_the_run_in_words(tmp_path, workers):
    store = drawn_store(tmp_path, shards=1)
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(UserError, match="are the shards where they were") as caught:
        next(iter(load(store, workers=workers)))
    assert "Traceback" not in str(caught.value)


def test_the_cache_gives_the_same_samples_small(tmp_path):
    store = drawn_store(tmp_path, shards=2)
    cache = str(tmp_path / "cache")
    lines = []
    assert write_cache(store, cache, short_side=40, log=lines.append) == 40
    assert write_cache(store, cache, short_side=40, log=lines.append) == 0
    plain = list(load(store))
    for number in range(2):
        (tmp_path / f"{number:05}.tar").unlink()
    cached = list(load(store, cache=cache))
    for one, other in zip(plain, cached, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.text_mask, other.text_mask)
        assert (one.images.float() - other.images.float()).abs().mean() < 2
    with pytest.raises(UserError, match="short_side"):
        write_cache(store, cache, short_side=50)


def test_a_cache_of_other_images_does_not_count(tmp_path):
    store = drawn_store(tmp_path, shards=1)
    write_cache(store, str(tmp_path / "cache"), short_side=40, log=lambda line: None)
    source = tmp_path / "new.tar"
    places = tar(source, [jpeg(200)] * 20)
    Store.create(store, {"made": "for tests"}).commit(
        "00000", rows("00000", source, places), record("00000", source)
    )
    batch = next(iter(load(store, cache=str(tmp_path / "cache"))))
    assert set(red(batch)) <= {199, 200, 201}


def test_an_image_may_be_a_file_of_its_own(tmp_path):
    path = tmp_path / "one.jpg"
    path.write_bytes(jpeg(77))
    store = Store.create(str(tmp_path / "store"), {})
    tables = rows("00000", path, [(0, 1)] * 8)
    samples = tables["samples"]
    for name in ("offset", "size"):
        column = samples.schema.get_field_index(name)
        samples = samples.set_column(column, samples.schema.field(name), pa.nulls(8, pa.int64()))
    store.commit("00000", tables | {"samples": samples}, record("00000", path))
    assert set(red(next(iter(load(store.url))))) <= {76, 77, 78}


def test_shards_of_a_compacted_store(tmp_path):
    from macco.preprocess.exchange.compact import compact

    url = drawn_store(tmp_path)
    small = compact(Store.open(url), str(tmp_path / "compact"))
    assert all_equal(list(load(url)), list(load(small.url)))


def test_a_store_at_a_url(store):
    fsspec.filesystem("memory").put(store, "/remote-store", recursive=True)
    assert all_equal(list(load(store)), list(load("memory://remote-store")))


def test_workers_may_be_spawned(store):
    loader = load(store)
    copy = pickle.loads(pickle.dumps(Batches(loader.plan)))
    assert equal(copy[0, 0].batch, next(iter(loader)))


def test_the_trainings_random_numbers_are_left_alone(store):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(load(store)))
    assert torch.equal(torch.rand(3), expected)


def test_failed_rows_and_uncommitted_shards_are_not_shown(tmp_path):
    url = drawn_store(tmp_path, shards=2)
    Path(url, "shards", "00000.json").unlink()
    assert load(url).samples == 20


def test_big_shards_go_in_pieces(store, monkeypatch):
    monkeypatch.setattr("macco.train.data.index.PIECE", 7)
    loader = load(store, where="row % 3 <> 1", batch_size=13)
    assert loader.samples == 39
    batches = list(loader)
    names = [name for batch in batches for name in batch.ids]
    assert len(set(names)) == len(names) == 39
    for batch in batches:
        assert max(abs(a - b) for a, b in zip(red(batch), numbers(batch), strict=True)) <= 2


def test_windows_cover_an_epoch_exactly_and_mix_it():
    counts = np.random.default_rng(0).integers(0, 9000, 500)
    epoch = Epoch(np.concatenate([[0], np.cumsum(counts)]), seed=3, epoch=1)
    total, covered, pieces = int(counts.sum()), 0, []
    position = 0
    while position < total:
        window = epoch.window(epoch.number(position))
        assert window.start == position
        assert sorted(window.order.tolist()) == list(range(int(counts[window.pieces].sum())))
        pieces += window.pieces.tolist()
        position += len(window.order)
        covered += len(window.order)
    assert covered == total
    assert sorted(pieces) == list(range(500))
    assert epoch.number(total - 1) == epoch.number(position - 1)


def test_the_order_of_a_hundred_million_is_found_at_once():
    import time

    starts = np.arange(0, 100_000_001, 8000)
    begin = time.perf_counter()
    epoch = Epoch(starts, seed=0, epoch=5)
    places = [epoch.window(epoch.number(p)).order[0] for p in (0, 50_000_000, 99_999_999)]
    assert time.perf_counter() - begin < 1
    assert all(0 <= place < math.inf for place in places)


def test_a_file_stays_open_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of threads that open the same file at once, the cache keeps one's: the others' must not close under them."""
    (tmp_path / "a").write_bytes(b"0123456789")
    pread = os.pread

    def late(number: int, size: int, offset: int) -> bytes:
        images._file.cache_clear()
        return pread(number, size, offset)

    monkeypatch.setattr(os, "pread", late)
    assert images.read(str(tmp_path / "a"), None, 2, 3) == b"234"
