"""READ-CLIP: its losses against the authors' numbers, its frozen decoder, and captions of one image."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from macco.pipeline.errors import UserError
from macco.pipeline.store import Store
from macco.pipeline.tokens import Tokenize
from macco.train.config import DataConfig
from macco.train.data.elsewhere import import_texts
from macco.train.data.loader import open_loader
from macco.train.loop.run import warnings
from macco.train.objectives.read.batches import SiblingPairs
from macco.train.objectives.read.decoder import Labels, load_decoder
from macco.train.objectives.read.model import ReadModel
from macco.train.objectives.read.settings import ReadConfig
from tests.check_vectors import check
from tests.support import DATA
from tests.support.drawn import drawn_store
from tests.support.objective_batches import sibling_batch
from tests.support.tiny import tiny_clip
from tests.support.tiny_t5 import write_t5

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_t5(tmp_path_factory.mktemp("t5"))


def quiet(line: str) -> None:
    pass


def test_losses_and_gradients_are_the_authors() -> None:
    rows = check(DATA / "vectors" / "readclip.safetensors")
    assert len(rows) == 4 * (4 + 2 + 8)
    assert [row for row in rows if not row.error <= 1e-9] == []


def test_the_decoder_moves_with_the_model_and_is_no_part_of_it(t5: str) -> None:
    model = ReadModel(tiny_clip(), ReadConfig(decoder=t5))
    assert model.new_state() == {"memory.weight"}
    assert {name for name, _ in model.named_parameters() if not name.startswith("clip.")} == {"memory.weight"}
    (decoder,) = model._beside
    model.double()
    assert {p.dtype for p in decoder.parameters()} == {torch.float64}
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    model(sibling_batch())["loss"].backward()
    assert model.memory is not None
    assert model.memory.weight.grad is not None
    assert all(p.grad is None for p in decoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    assert not decoder.training
    assert load_decoder(t5, 0.1).training


def test_each_loss_can_be_off_and_what_is_absent_counts_for_nothing(t5: str) -> None:
    clip, batch = tiny_clip(), sibling_batch()

    def losses(batch: Any, **switches: Any) -> dict[str, float]:
        torch.manual_seed(1)
        found = ReadModel(clip, ReadConfig(decoder=t5, **switches)).double()(batch)
        return {name: loss.item() for name, loss in found.items()}

    whole = losses(batch)
    expected = whole["contrast"] + 0.1 * whole["reconstruction"] + 0.5 * whole["alignment"]
    assert whole["loss"] == pytest.approx(expected, rel=1e-9)
    for name in ("reconstruction", "alignment"):
        assert set(losses(batch, **{name: 0})) == {*whole} - {name}
    other = replace(batch, paraphrases=batch.paraphrases.clone())
    other.paraphrases[1] = 3
    assert losses(other) == pytest.approx(whole, rel=1e-9)
    nothing = replace(
        batch,
        paraphrase_valid=torch.zeros(6, dtype=torch.bool),
        labels=torch.full_like(batch.labels, -100),
        label_slots=None,
    )
    found = losses(nothing)
    assert found["alignment"] == found["reconstruction"] == 0
    assert found["contrast"] == pytest.approx(whole["contrast"], rel=1e-9)


def captions_by_image(store: Store) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for shard in store.committed():
        for row in store.table("samples", shard).to_pylist():
            found.setdefault(row["sample_id"].rpartition("/")[0], set()).add(row["caption"])
    return found


def said(tokens: Any) -> str:
    return TOKENIZER.decode([int(t) for t in tokens if 0 < t < 49406]).strip()


def test_other_captions_of_the_image_are_read(store: Store, t5: str) -> None:
    """On the demo corpus, whose images have several."""
    labels = Labels(t5, 77)
    recipe = SiblingPairs(tokenize=Tokenize(TOKENIZER), image_size=32, labels=labels, align=True)
    data = DataConfig(store=store.url, batch_size=12, workers=0)
    by_image, own = captions_by_image(store), 0
    batches = iter(open_loader(data, recipe, log=quiet))
    for batch in (next(batches) for _ in range(2)):
        assert batch.paraphrase_valid.all()
        for row, name in enumerate(batch.ids):
            image = {said(TOKENIZER.encode(text)) for text in by_image[name.rpartition("/")[0]]}
            caption, other = said(batch.tokens[row]), said(batch.paraphrases[row])
            assert {caption, other} <= image
            written = labels._tokenizer.decode(
                batch.labels[row][batch.labels[row] >= 0], skip_special_tokens=True
            )
            assert written in by_image[name.rpartition("/")[0]]
            own += said(TOKENIZER.encode(written)) == caption
            assert batch.labels[row].max() >= 3
    assert 0 < own < 24  # its own perhaps


def test_paraphrases_made_elsewhere_come_first_and_without_any_it_is_refused(t5: str, tmp_path: Path) -> None:
    url = drawn_store(tmp_path, shards=1, images=4)
    recipe = SiblingPairs(tokenize=Tokenize(TOKENIZER), image_size=32, labels=Labels(t5, 77), align=True)
    data = DataConfig(store=url, batch_size=4, workers=0)
    with pytest.raises(UserError, match=r"no image of .* has a second caption"):
        open_loader(data, recipe, log=quiet)
    open_loader(data, replace(recipe, labels=None, align=False), log=quiet)
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"sample_id": "d/00000/000000002/0", "paraphrases": ["a dog rests"]}))
    import_texts(Store.open(url), str(file), quiet)
    batch = next(iter(open_loader(data, recipe, log=quiet)))
    assert batch.paraphrase_valid.sum() == 1
    row = batch.ids.index("d/00000/000000002/0")
    assert batch.paraphrase_valid[row]
    assert said(batch.paraphrases[row]) == "a dog rests"
    assert (batch.labels >= 0).any(1).nonzero().flatten().tolist() == [row]


def test_a_shard_whose_paraphrases_went_is_named_before_the_first_batch(t5: str, tmp_path: Path) -> None:
    url = drawn_store(tmp_path, shards=2, images=4)
    recipe = SiblingPairs(tokenize=Tokenize(TOKENIZER), image_size=32, labels=Labels(t5, 77), align=True)
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"sample_id": "d/00000/000000002/0", "paraphrases": ["a dog rests"]}))
    import_texts(Store.open(url), str(file), quiet)
    Path(url, "paraphrases", "00001.parquet").unlink()  # as an extraction does where the shard's rows change
    with pytest.raises(UserError, match=r"no paraphrases of 1 shards, such as 00001: .*import-texts"):
        open_loader(DataConfig(store=url, batch_size=4, workers=0), recipe, log=quiet)


def test_captions_without_another_are_counted_and_said(store: Store, t5: str, tmp_path: Path) -> None:
    recipe = SiblingPairs(tokenize=Tokenize(TOKENIZER), image_size=32, labels=Labels(t5, 77), align=True)

    def lines(url: str, where: str = "") -> list[str]:
        data = DataConfig(store=url, batch_size=4, workers=0, where=where)
        return list(warnings(open_loader(data, recipe, log=quiet).plan, Store.open(url), ""))

    assert lines(store.url) == []
    (line,) = lines(store.url, "caption_id = 0")
    images = len(captions_by_image(store))
    assert line.startswith(f"warning: 0 of {images:,} captions have another of their image, or a paraphrase")
    url = drawn_store(tmp_path, shards=1, images=8)
    file = tmp_path / "texts.jsonl"
    names = [f"d/00000/{number:09}/0" for number in range(4)]
    for named, said_ in ((names[:3], 1), (names, 0)):
        file.write_text("".join(json.dumps({"sample_id": n, "paraphrases": ["x"]}) + "\n" for n in named))
        import_texts(Store.open(url), str(file), quiet)
        assert len(lines(url)) == said_


def test_a_decoder_that_is_not_there_is_one_line(t5: str, tmp_path: Path) -> None:
    for make in (lambda: load_decoder(str(tmp_path), 0.0), lambda: Labels(str(tmp_path / "no"), 77)):
        with pytest.raises(UserError, match=r"read\.(decoder|tokenizer): no T5") as caught:
            make()
        assert "\n" not in str(caught.value)
    shutil.copytree(t5, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"read\.decoder"):
        load_decoder(str(tmp_path / "cut"), 0.0)


def test_weights_that_are_no_decoder_are_refused(t5: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "encoder"
    shutil.copytree(t5, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("decoder.block")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"its weights lack decoder\.block"):
        load_decoder(str(folder), 0.0)


def test_labels_are_cut_at_their_length(t5: str) -> None:
    ids = Labels(t5, 5)("a dog rests")
    assert len(ids) == 5
    assert ids[-1] == 1
    assert Labels.padded([ids, [], [7, 1]]).tolist()[1:] == [[-100] * 5, [7, 1, -100, -100, -100]]
    assert Labels.padded([[], []]).shape == (2, 1)
