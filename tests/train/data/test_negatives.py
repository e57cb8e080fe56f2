"""Hard negatives: wrong captions by exchanging and replacing words, and their way into batches."""

import numpy as np
import open_clip
import pytest

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.train.data.negatives import Vocabulary, edited, negatives, write_negatives
from macco.train.objectives.macco.batches import open_training_data
from tests.support.drawn import CAPTION, drawn_store, jpeg, record, rows, tar

OTHER = "A big cat is resting at an ashen desk"  # its words stand where CAPTION's do
TOKENIZER = open_clip.get_tokenizer("ViT-B-32")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """20 samples of CAPTION and 4 of OTHER, with negatives."""
    folder = tmp_path_factory.mktemp("drawn")
    made = Store.create(drawn_store(folder, shards=1), {"made": "for tests"})
    source = folder / "00009.tar"
    places = tar(source, [jpeg(200 + i) for i in range(4)])
    tables = rows("00009", source, places, OTHER)
    made.commit("00009", tables, record("00009", source))
    assert write_negatives(made, 0, lambda line: None) == 24 * 5
    return made


def table(store, shard):
    import pyarrow.parquet as pq

    found = pq.read_table(store.path(f"negatives/{shard}.parquet")).to_pylist()
    return {row["kind"]: row["caption"] for row in found if row["sample_id"].endswith("000000000/0")}


def test_words_are_exchanged_and_replaced_in_place(store):
    first = table(store, "00000")
    assert first["swap_object"] == "A small sofa is sitting on a red dog."
    assert first["swap_attribute"] == "A small dog is sitting on a red sofa."
    assert first["replace_relation"] == "A red dog is resting at a small sofa."
    assert first["replace_attribute"] in {
        f"{article} {one} dog is sitting on {other} sofa."
        for article, one, other in (
            ("A", "big", "a small"),
            ("An", "ashen", "a small"),
            ("A", "red", "a big"),
            ("A", "red", "an ashen"),
        )
    }


def test_a_noun_is_replaced_by_one_that_the_caption_does_not_name():
    caption, words = (
        "A dog and an old cat",
        Vocabulary({("object", "NOUN", ""): (["cat", "owl"], [0.9, 0.1])}),
    )
    concepts = [
        {"concept_id": noun, "kind": "object", "lemma": noun, "pos": "NOUN", "text": noun, "head": noun}
        | {"start": start, "end": start + 3, "head_start": start, "owner_id": None}
        | {"subject_id": None, "object_id": None}
        for noun, start in (("dog", 2), ("cat", 17))
    ]
    made = [negatives(caption, concepts, words, np.random.default_rng(seed)) for seed in range(10)]
    found = {one.pop("replace_object") for one in made if one}  # of twenty draws all may be the cat
    assert found == {"An owl and an old cat", "A dog and an old owl"}
    assert not any(made)


def test_the_other_kinds_are_drawn_as_before_there_were_nouns(store):
    concepts = rows("s", "s.tar", [(0, 1)])["concepts"].to_pylist()
    for seed in range(5):
        with_nouns, without = (
            negatives(CAPTION, concepts, Vocabulary.of(store, nouns=nouns), np.random.default_rng(seed))
            for nouns in (True, False)
        )
        assert with_nouns.pop("replace_object")
        assert with_nouns == without


def test_equal_seeds_make_equal_tables(store):
    def bytes_():
        return [store.fs.cat_file(store.path(f"negatives/{shard}.parquet")) for shard in ("00000", "00009")]

    before = bytes_()
    write_negatives(store, 1, lambda line: None)
    assert bytes_() != before
    write_negatives(store, 0, lambda line: None)
    assert bytes_() == before


def test_what_would_say_the_same_is_left_out(store):
    concepts = rows("s", "s.tar", [(0, 1)])["concepts"].to_pylist()
    words = Vocabulary.of(store)

    def kinds(**changes):
        changed = [row | changes if row["kind"] == "relation" else row for row in concepts]
        return negatives(CAPTION, changed, words, np.random.default_rng(0)).keys()

    assert "swap_object" in kinds()
    assert "swap_object" not in kinds(lemma="next to")
    assert "swap_object" not in kinds(subject_id=None)
    assert "replace_relation" not in kinds(
        text="resting under"
    )  # the corpus has "resting at" and "sitting on"
    same = [row | {"lemma": "dog"} if row["kind"] == "object" else row for row in concepts]
    assert (
        not {"swap_object", "swap_attribute"}
        & negatives(CAPTION, same, words, np.random.default_rng(0)).keys()
    )
    assert negatives(CAPTION, [], words, np.random.default_rng(0)) == {}


def test_of_two_attributes_that_next_to_the_noun_is_exchanged():
    caption = "a small red dog and a black cat"
    found = []
    for name, kind, text, owner, pos in [
        ("o1", "object", "dog", None, "NOUN"),
        ("o2", "object", "cat", None, "NOUN"),
        ("a1", "attribute", "small", "o1", "ADJ"),
        ("a2", "attribute", "red", "o1", "ADJ"),
        ("a3", "attribute", "black", "o2", "ADJ"),
    ]:
        start = caption.index(text)
        place = {"start": start, "end": start + len(text), "head_start": start, "text": text, "head": text}
        ends = {"owner_id": owner, "subject_id": None, "object_id": None}
        found.append({"concept_id": name, "kind": kind, "lemma": text, "pos": pos} | place | ends)
    for seed in range(5):
        made = negatives(caption, found, Vocabulary({}), np.random.default_rng(seed))
        assert made == {"swap_attribute": "a small black dog and a red cat"}


@pytest.mark.parametrize(
    ("caption", "edits", "expected"),
    [
        ("A red dog", [(2, 5, "orange")], "An orange dog"),
        ("an old dog and a red cat", [(3, 6, "red"), (17, 20, "old")], "a red dog and an old cat"),
        ("Dogs chase cats", [(0, 4, "cats"), (11, 15, "Dogs")], "Cats chase dogs"),
        ("dogs chase cats", [(0, 4, "cats"), (11, 15, "dogs")], "cats chase dogs"),
        ("NASA has a rocket", [(0, 4, "a rocket"), (9, 17, "NASA")], "A rocket has NASA"),
    ],
)
def test_capitals_and_articles_follow(caption, edits, expected):
    assert edited(caption, edits) == expected


def test_batches_hold_the_negatives_that_there_are(store):
    options = {"image_size": 32, "patch_size": 8, "batch_size": 24, "workers": 0, "log": lambda line: None}
    batch = next(iter(open_training_data(store.url, TOKENIZER, negatives=2, **options)))
    assert batch.negatives.shape[:2] == (24, 2)
    assert batch.negative_valid.all()
    texts = {TOKENIZER.decode(caption.tolist()) for caption in batch.negatives[:, 0]}
    assert any("a small sofa is sitting on a red dog" in text for text in texts)
    assert next(iter(open_training_data(store.url, TOKENIZER, **options))).negatives is None
    store.fs.rm_file(store.path("negatives/00009.parquet"))
    store.fs.pipe_file(store.path("negatives/00009.parquet"), _empty())
    batch = next(iter(open_training_data(store.url, TOKENIZER, negatives=4, **options)))
    few = [name.split("/")[1] == "00009" for name in batch.ids]
    assert (~batch.negative_valid).all(1).tolist() == few
    assert sum(few) == 4


def _empty():
    from macco.pipeline.parquet import parquet_bytes
    from macco.pipeline.schema import NEGATIVE_ROWS

    return parquet_bytes(NEGATIVE_ROWS, NEGATIVE_ROWS.empty_table())


def test_a_store_without_negatives_says_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match="macco-train negatives"):
        open_training_data(
            drawn_store(tmp_path), TOKENIZER, image_size=32, patch_size=8, batch_size=8, negatives=1
        )
