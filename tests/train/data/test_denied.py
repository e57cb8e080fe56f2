"""What captions deny, in training: masked by choice only, never a hard negative; former stores deny nothing."""

from pathlib import Path

import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from macco.pipeline.errors import UserError
from macco.pipeline.query import connect
from macco.pipeline.schema import CONCEPTS
from macco.pipeline.store import Store
from macco.train.config import MaskConfig
from macco.train.data.negatives import Vocabulary, write_negatives
from macco.train.objectives.macco.batches import open_training_data
from tests.support.drawn import drawn_store, jpeg, record, rows, tar

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
FORMER = Path(__file__).parents[2] / "fixtures" / "v0.1" / "store"
DENIED = ("sitting on", "small")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Samples of the drawn caption, where the relation and one attribute are denied."""
    folder = tmp_path_factory.mktemp("denied")
    made = Store.create(drawn_store(folder, shards=0), {"made": "for tests"})
    source = folder / "00000.tar"
    tables = rows("00000", source, tar(source, [jpeg(image) for image in range(8)]))
    marks = pa.array([text in DENIED for text in tables["concepts"]["text"].to_pylist()])
    tables["concepts"] = tables["concepts"].set_column(
        CONCEPTS.get_field_index("denied"), CONCEPTS.field("denied"), marks
    )
    made.commit("00000", tables, record("00000", source))
    return made


def masked(store: Store, **masks: bool) -> set[str]:
    loader = open_training_data(
        store.url,
        TOKENIZER,
        image_size=32,
        patch_size=8,
        batch_size=8,
        workers=0,
        log=lambda line: None,
        masks=MaskConfig(rectangle=0, **masks),
    )
    batch = next(iter(loader))
    return {
        TOKENIZER.decode([int(token)]).strip()
        for tokens, mask in zip(batch.tokens, batch.text_mask, strict=True)
        for token in tokens[mask]
    }


def test_what_is_denied_is_masked_by_choice_only(store: Store) -> None:
    assert masked(store) == {"red"}
    assert masked(store, denied=True) == {"red", "small", "sitting", "on"}


def test_no_hard_negative_is_made_of_what_is_denied(store: Store) -> None:
    assert {text for words, _ in Vocabulary.of(store).words.values() for text in words} == {"red"}
    assert write_negatives(store, 0, lambda line: None) == 0


def test_a_former_store_denies_nothing_and_is_only_read() -> None:
    former = Store.open(str(FORMER))
    (shard, *_) = sorted(former.committed())
    concepts = former.table("concepts", shard)
    assert concepts.schema == CONCEPTS
    assert concepts["denied"].null_count == concepts.num_rows > 0
    assert "denied" not in pq.read_schema(FORMER / "concepts" / f"{shard}.parquet").names
    with connect(former) as connection:
        counts = connection.execute(
            "SELECT count(*), count(denied), count(concept_id) FROM concepts"
        ).fetchone()
    assert counts is not None
    assert counts[0] == counts[2] > 0 == counts[1]
    with pytest.raises(UserError, match="only read"):
        Store.create(str(FORMER), former.description()["settings"])
