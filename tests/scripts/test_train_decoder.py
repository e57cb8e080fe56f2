"""The script of READ-CLIP's decoder: what it writes is one that `read.decoder` takes."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

from macco.pipeline.store import Store
from macco.train.data.slots import Slots
from macco.train.objectives.read.decoder import IGNORED, Labels, load_decoder
from tests.support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import train_decoder


@pytest.mark.slow
def test_the_decoder_opens_and_knows_its_words(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, caption = tmp_path / "t5", store.table("samples", min(store.committed()))["caption"][0].as_py()
    arguments = [store.url, str(out), "--steps", "60", "--batch", "8", "--judged", "20"]
    monkeypatch.setattr(sys, "argv", ["train_decoder", *arguments])
    train_decoder.main()
    ids = Labels(str(out), 77)(caption)
    assert train_decoder.UNKNOWN not in ids
    assert ids[-1] == train_decoder.END
    decoder, labels = load_decoder(str(out), 0.0), Labels.padded([ids])
    t5 = T5ForConditionalGeneration.from_pretrained(out)
    memory = t5.encoder(torch.tensor([ids])).last_hidden_state[:, :1]
    expected = t5(encoder_outputs=(memory,), labels=labels).logits[0]
    logits = decoder(memory[:, 0], labels, Slots.of(labels != IGNORED))
    torch.testing.assert_close(logits, expected)
    after_period = logits.softmax(1)[-1]  # the last label is the end token
    assert after_period[train_decoder.END] > 0.5  # it has learned something of what captions are


def test_a_third_of_the_words_is_covered() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[5, 9, 7, 6, 1, 0, 0]]).repeat(3000, 1)
    seen = train_decoder.covered(tokens)
    hidden = seen == train_decoder.COVER
    assert not hidden[:, 4:].any()
    assert (seen[~hidden] == tokens[~hidden]).all()
    assert hidden[:, :4].float().mean() == pytest.approx(1 / 3, abs=0.03)
